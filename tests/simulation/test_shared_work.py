"""What cells of one federation share: normalized data, and poisoned data across defenses and workers."""

import gc
import weakref

import pytest
import torch

from fedguard.contracts.data import Share
from fedguard.contracts.registry import make_attack
from fedguard.simulation import client_data, pool, setup
from fedguard.simulation.keys import CellKey
from fedguard.simulation.packing import pack, unpack
from fedguard.simulation.settings import Cell

BASE = {
    "clients": 5,
    "malicious": 2,
    "attack_label": "a",
    "attack": {"name": "random_labels"},
    "defense_label": "d",
    "defense": {},
    "seed": 3,
}


def cell(**changes):
    return Cell.model_validate({**BASE, **changes})


@pytest.fixture
def poisonings(monkeypatch):
    """How many samples each call of ``poison_data`` got."""
    client_data._poisoned_by.cache_clear()
    kind, calls = type(make_attack("random_labels")), []
    inner = kind.poison_data
    monkeypatch.setattr(kind, "poison_data", lambda *a: calls.append(len(a[1].labels)) or inner(*a))
    yield calls
    client_data._poisoned_by.cache_clear()


def data_of(one, attacking=True):
    client = setup.setup_for(one).malicious[0]
    return client_data.training_data(CellKey.of(one), client, attacking)


SAME = [
    {"defense": {"detector": "krum"}, "defense_label": "krum"},
    {"attack_label": "b"},
    {"attack": {"name": "random_labels", "schedule": {"start": 3}}},
    {"mode": "shadow"},
    {"point": {"clients": 5}},
]
OTHER = [{"seed": 4}, {"attack": {"name": "label_flip"}}, {"clients": 6}]


@pytest.mark.parametrize("changes", SAME)
def test_data_are_poisoned_once_for_all_defenses(poisonings, changes):
    first = data_of(cell())
    assert data_of(cell(**changes)) is first
    assert len(poisonings) == 1


@pytest.mark.parametrize("changes", OTHER)
def test_other_federations_and_attacks_have_other_poisoned_data(poisonings, changes):
    assert data_of(cell(**changes)) is not data_of(cell())


def test_poisoned_data_are_those_of_the_attack(poisonings):
    one = cell()
    whole, poisoned = data_of(one, attacking=False), data_of(one)
    assert isinstance(whole, Share)
    assert torch.equal(poisoned.inputs, whole.data.inputs[whole.rows])
    assert not torch.equal(poisoned.labels, whole.data.labels[whole.rows])
    assert poisonings == [len(whole.rows)]


def test_poisoned_data_of_earlier_attacks_are_given_up(poisonings):
    kept = [weakref.ref(data_of(cell(seed=seed)).labels) for seed in range(8)]
    gc.collect()
    assert [labels() is not None for labels in kept] == 4 * [False] + 4 * [True]


def test_clean_data_stay_where_they_are():
    one, other = cell(), cell(seed=9, defense={"aggregator": "median"})
    assert data_of(one, attacking=False).data.inputs.data_ptr() == (
        setup.setup_for(one).dataset.training_set.inputs.data_ptr()
    )
    assert data_of(one, attacking=False).data is client_data.training_data(CellKey.of(one), 0, False).data
    untouched = cell(attack={"name": "min_max"})
    assert isinstance(data_of(untouched), Share), "an attack that poisons no data needs no copy"
    assert other.key != one.key


def test_one_worker_poisons_for_all(poisonings, tmp_path):
    token = pool._SCRATCH.set(tmp_path)
    try:
        first = data_of(cell())
        client_data._poisoned_by.cache_clear()  # as in another worker
        second = data_of(cell(defense={"aggregator": "median"}))
    finally:
        pool._SCRATCH.reset(token)
    assert len(poisonings) == 1
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.labels, second.labels)
    client_data._poisoned_by.cache_clear()
    alone = data_of(cell())
    assert torch.equal(alone.inputs, second.inputs)
    assert torch.equal(alone.labels, second.labels)


def test_a_key_travels_small_and_finds_what_is_cached():
    key = CellKey.of(cell())
    arrived = unpack(pack(key))
    assert arrived == key
    assert arrived.cell == cell()
    assert len(pack(key)) < 2 * len(key.settings), "what is derived from the key does not travel along"
    assert setup.setup_of(arrived) is setup.setup_for(cell())


def test_keys_differ_where_the_work_does():
    one = CellKey.of(cell())
    for changes in SAME:
        other = CellKey.of(cell(**changes))
        assert (other.setup, other.attack) == (one.setup, one.attack)
    assert CellKey.of(cell(attack={"name": "label_flip"})).setup == one.setup
    for changes in OTHER:
        assert CellKey.of(cell(**changes)).attack != one.attack


def test_flips_of_a_class_that_a_client_lacks_change_nothing():
    skewed = {"partition": {"name": "dirichlet", "beta": 0.1}}
    plain = setup.setup_for(cell(**skewed))
    client = plain.malicious[0]
    has = set(plain.client_samples(client).labels.tolist())
    for source in range(10):
        flip = {"name": "label_flip", "mode": "pairs", "pairs": {source: (source + 1) % 10}}
        changed = client_data.changes_data(CellKey.of(cell(**skewed, attack=flip)), client)
        assert changed == (source in has)
    assert 0 < len(has) < 10, "both kinds of class were tried"


@pytest.mark.usefixtures("forked_workers")
def test_workers_have_a_folder_in_common():
    assert pool.scratch() is None
    with pool.Workers(2) as workers:
        folders = workers.map(_folder, range(4))
        assert len(set(folders)) == 1
        assert folders[0] == str(workers._folder.name)


def _folder(_):
    return str(pool.scratch())
