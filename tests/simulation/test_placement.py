"""Whole cells on a pretended device: nothing mixes devices, and the results agree with the CPU's."""

import hashlib
import json
import pickle

import pytest
import torch

from fedguard.contracts.server import map_in_order
from fedguard.simulation import placement
from fedguard.simulation.federation import Federation
from fedguard.simulation.flcert import FLCert
from fedguard.simulation.keys import CellKey
from fedguard.simulation.settings import Cell
from fedguard.testing.pretended_device import can_pretend, pretended_device, registered_device

pytestmark = pytest.mark.skipif(not can_pretend(), reason="this torch cannot register a device in Python")
if can_pretend():
    registered_device()  # before any test of this process calls autograd, which counts devices once

CASES = {
    "a model attack and a detector": {
        "attack": {"name": "lie"},
        "defense": {"detector": [{"name": "krum"}], "aggregator": "geometric_median"},
    },
    "an attack on gradients": {
        "attack": {"name": "neurotoxin"},
        "model": {"name": "mlp", "hidden": [8]},
        "defense": {"detector": [{"name": "flame"}]},
    },
    "a detector that evaluates, and the server's own training": {
        "attack": {"name": "label_flip"},
        "server": {"validation": 60, "root": 60},
        "defense": {"detector": [{"name": "err"}], "aggregator": "fltrust"},
    },
    "an attack that prepares rounds": {
        "attack": {"name": "three_dfed", "epochs": 2},
        "malicious": 3,
        "model": {"name": "mlp", "hidden": [8]},
        "defense": {"detector": [{"name": "krum"}]},
    },
    "an attack that asks the guard": {
        "attack": {"name": "adaptive"},
        "defense": {"detector": [{"name": "krum"}], "stages": [{"name": "norm_clipping"}]},
    },
}


def cell(device, **changes):
    base = {
        "data": {"name": "digits"},
        "clients": 7,
        "malicious": 2,
        "rounds": 2,
        "training": {"steps": 2, "batch_size": 16, "lr": 0.1},
        "attack_label": "",
        "defense_label": "",
        "seed": 0,
        "device": device,
    }
    return Cell(**{**base, **changes})


@pytest.fixture
def there(monkeypatch):
    """The device that cells with ``device: cuda`` find."""
    caches = (placement._moved_model, placement._moved_training_set, placement._moved_batches)
    with pretended_device() as device:
        monkeypatch.setattr(
            placement, "_resolved", lambda name: torch.device("cpu") if name == "cpu" else device
        )
        yield device
        for cache in caches:
            cache.cache_clear()


@pytest.mark.parametrize("case", CASES)
def test_a_cell_on_the_device_agrees_with_the_cpu(case, there):
    plain = Federation(cell("cpu", **CASES[case]))
    here, seen = plain.run(), []
    far = Federation(cell("cuda", **CASES[case]))
    process = far.guard.process
    far.guard.process = lambda round: seen.append(round) or process(round)
    records = far.run()
    for round in seen:
        assert round.updates.device == round.global_params.device == there
        assert {p.device for p in round.server.model.parameters()} == {there}
        for held in (round.server.validation, round.server.root):
            assert held is None or held.inputs.device == held.labels.device == there
    for one, other in zip(here, records, strict=True):
        assert other.tacc == pytest.approx(one.tacc)
        assert [row.suspect for row in other.clients] == [row.suspect for row in one.clients]
    torch.testing.assert_close(far.params, plain.params)
    assert far.params.device.type == "cpu"


def test_a_voting_ensemble_agrees_with_the_cpu(there):
    defense = {"flcert": {"groups": 2}}
    here, far = (
        FLCert(cell(device, attack={"name": "none"}, defense=defense)).run() for device in ("cpu", "cuda")
    )
    assert [record.tacc for record in far] == [record.tacc for record in here]


def flags(_):
    return torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark


def test_the_servers_own_work_is_deterministic_on_the_device(monkeypatch):
    monkeypatch.setattr(placement, "_resolved", torch.device)
    settings = {"attack": {"name": "none"}, "defense": {}}
    plain, far = (CellKey.of(cell(device, **settings)) for device in ("cpu", "cuda"))
    assert placement.map_on(plain, map_in_order) is map_in_order
    there = pickle.loads(pickle.dumps(placement.map_on(far, map_in_order)))  # noqa: S301 - as to workers
    assert there(flags, [0, 1]) == [(True, False)] * 2
    assert flags(0) == (False, False)


def test_the_device_is_part_of_the_key_except_the_cpu():
    settings = {"attack": {"name": "none"}, "defense": {}}
    plain, far = cell("cpu", **settings), cell("cuda", **settings)
    assert far.key != plain.key
    left_out = {"attack_label", "defense_label", "point", "device"}
    text = json.dumps(plain.model_dump(mode="json", exclude=left_out), sort_keys=True)
    assert plain.key == hashlib.sha256(text.encode()).hexdigest()[:16], "as before there were devices"
