"""What cells of one federation share: normalized data, and poisoned data across defenses and workers."""

import pytest
import torch

from fedguard.contracts.data import Share
from fedguard.contracts.registry import make_attack
from fedguard.simulation import pool, setup
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
    setup._poisoned.cache_clear()
    kind, calls = type(make_attack("random_labels")), []
    inner = kind.poison_data
    monkeypatch.setattr(kind, "poison_data", lambda *a: calls.append(len(a[1].labels)) or inner(*a))
    yield calls
    setup._poisoned.cache_clear()


def data_of(one, attacking=True):
    client = setup.setup_for(one).malicious[0]
    return setup.training_data(one.model_dump_json(), client, attacking)


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


def test_clean_data_stay_where_they_are():
    one, other = cell(), cell(seed=9, defense={"aggregator": "median"})
    assert data_of(one, attacking=False).data.inputs.data_ptr() == (
        setup.setup_for(one).dataset.training_set.inputs.data_ptr()
    )
    assert data_of(one, attacking=False).data is setup.training_data(one.model_dump_json(), 0, False).data
    untouched = cell(attack={"name": "min_max"})
    assert isinstance(data_of(untouched), Share), "an attack that poisons no data needs no copy"
    assert other.key != one.key


def test_one_worker_poisons_for_all(poisonings, tmp_path):
    token = pool._SCRATCH.set(tmp_path)
    try:
        first = data_of(cell())
        setup._poisoned.cache_clear()  # as in another worker
        second = data_of(cell(defense={"aggregator": "median"}))
    finally:
        pool._SCRATCH.reset(token)
    assert len(poisonings) == 1
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.labels, second.labels)
    setup._poisoned.cache_clear()
    alone = data_of(cell())
    assert torch.equal(alone.inputs, second.inputs)
    assert torch.equal(alone.labels, second.labels)


def test_workers_have_a_folder_in_common():
    assert pool.scratch() is None
    with pool.Workers(2) as workers:
        folders = workers.map(_folder, range(4))
        assert len(set(folders)) == 1
        assert folders[0] == str(workers._folder.name)


def _folder(_):
    return str(pool.scratch())
