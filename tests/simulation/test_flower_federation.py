"""A cell through Flower agrees with the built-in loop to rounding."""

import pytest

pytest.importorskip("flwr")

from fedguard.core.errors import ParameterError, WorkerError
from fedguard.evaluation.running.executors import make_executor
from fedguard.evaluation.running.executors.flower import check_tasks
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.running.task import tasks_of
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.flower import FlowerFederation, answer
from fedguard.simulation.settings import Cell
from fedguard.testing.flower import MemoryGrid

BATCH_NORM = """
from torch import nn


class Normed(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
"""

SUITE = """\
{clients: 6, malicious: 2, rounds: 2, training: {steps: 2, batch_size: 16, lr: 0.1},
 attacks: [{name: lie, z: 3.0}], defenses: {krum: {detector: krum, policy: {name: ban, strikes: 1}}}}
"""

CASES = {
    "colluders, a detector and bans": {
        "attack": {"name": "lie", "z": 3.0},
        "defense": {"detector": [{"name": "norm_bound"}], "policy": {"name": "ban", "strikes": 1}},
    },
    "stages, an aggregator, false claims": {
        "attack": {"name": "byzantine", "mode": "random"},
        "defense": {"stages": [{"name": "norm_clipping"}], "aggregator": "fednova"},
    },
    "an attack on gradients": {
        "attack": {"name": "neurotoxin"},
        "defense": {"detector": [{"name": "krum"}]},
    },
    "the server's data and momentum": {
        "attack": {"name": "label_flip"},
        "server": {"validation": 60, "root": 60, "optimizer": "momentum", "lr": 0.5},
        "defense": {"detector": [{"name": "err"}], "aggregator": "fltrust"},
        "participation": 0.7,
    },
    "batch normalization": {
        "attack": {"name": "lie", "z": 3.0},
        "defense": {"detector": [{"name": "krum"}]},
        "model": {"name": "normed:Normed"},
    },
}


def cell(**changes):
    base = {
        "data": {"name": "digits"},
        "clients": 7,
        "malicious": 2,
        "rounds": 3,
        "training": {"steps": 2, "batch_size": 16, "lr": 0.1},
        "attack_label": "",
        "defense_label": "",
        "attack": {"name": "none"},
        "defense": {},
        "seed": 0,
    }
    return Cell(**{**base, **changes})


def grid(clients=7, client=lambda arrays, message: answer(message)):
    return MemoryGrid(dict.fromkeys(range(100, 100 + clients), client))


@pytest.mark.parametrize("case", CASES)
def test_a_cell_agrees_with_the_built_in_loop(case, tmp_path, monkeypatch):
    (tmp_path / "normed.py").write_text(BATCH_NORM, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    here, there = Federation(cell(**CASES[case])), FlowerFederation(cell(**CASES[case]), grid())
    for one, other in zip(here.run(), there.run(), strict=True):
        assert other.tacc == pytest.approx(one.tacc, abs=1e-9)
        assert other.loss == pytest.approx(one.loss, rel=1e-4)
        for row, same in zip(one.clients, other.clients, strict=True):
            assert (same.id, same.suspect, same.banned, same.participated, same.attacking) == (
                (row.id, row.suspect, row.banned, row.participated, row.attacking)
            )
            assert same.weight == pytest.approx(row.weight, rel=1e-4)
            assert same.score == pytest.approx(row.score, rel=1e-3, nan_ok=True)
    assert there.params.numpy() == pytest.approx(here.params.numpy(), abs=1e-5)
    assert there.statistics.numpy() == pytest.approx(here.statistics.numpy(), abs=1e-5)
    assert len(there.statistics) == (16 if case == "batch normalization" else 0)


@pytest.mark.parametrize("attack", ["a3fl", "iba", "chameleon", "dpot", "collapois", "three_dfed"])
def test_attacks_that_need_the_model_are_refused(attack):
    with pytest.raises(ParameterError, match=f"cannot run attack: {attack}"):
        FlowerFederation(cell(attack={"name": attack}), grid())


def test_only_the_asked_clients_get_messages():
    nodes = grid()
    FlowerFederation(cell(participation=0.5), nodes).run()
    assert [len(asked) for asked in nodes.asked] == [4, 4, 4]


def test_a_resumed_cell_is_the_same():
    whole = FlowerFederation(cell(**CASES["colluders, a detector and bans"]), grid())
    records = whole.run()
    first = FlowerFederation(cell(**CASES["colluders, a detector and bans"]), grid())
    first.step(0)
    second = FlowerFederation(cell(**CASES["colluders, a detector and bans"]), grid())
    second.load_state_dict(first.state_dict())
    assert [second.step(1).tacc, second.step(2).tacc] == [record.tacc for record in records[1:]]
    assert second.params.equal(whole.params)


def test_a_client_that_does_not_reply_is_an_error():
    silent = FlowerFederation(cell(), grid(client=lambda arrays, message: None))
    with pytest.raises(WorkerError, match=r"client 0 did not reply; run the same command"):
        silent.run()


@pytest.mark.slow
def test_the_real_simulation_agrees(tmp_path):
    """Flower's simulation on Ray: a suite's accuracies and verdicts are those of the pool."""
    pytest.importorskip("ray")
    path = tmp_path / "suite.yaml"
    path.write_text(SUITE, encoding="utf-8")
    suite = load_suite(path)[0]
    pool = run_suite(suite, tmp_path / "pool", 1)
    flower = run_suite(
        suite, tmp_path / "flower", 1, executor=make_executor("flower", 2, "cells", None, tmp_path, {})
    )
    for table, columns in (
        ("runs", ["status", "tacc", "dacc"]),
        ("clients", ["suspect", "banned", "reason"]),
    ):
        one, other = (store.table(table)[columns] for store in (pool, flower))
        assert one.to_dict() == other.to_dict()
        assert len(one) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "shadow", "defense": {"detector": [{"name": "krum"}]}}, "not mode 'shadow'"),
        ({"defense": {"flcert": {"groups": 2}}}, "flcert needs several"),
    ],
)
def test_what_flower_cannot_run_is_refused(changes, message, tmp_path):
    with pytest.raises(ParameterError, match=message):
        check_tasks(tasks_of([(0, cell(**changes))], tmp_path, 1))


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ParameterError, match=r'pip install "fedguard\[flower\]"'):
        make_executor("flower", 1, "cells", None, tmp_path, {})
