"""Where the updates of a round are put: the same here and in workers, in memory that nobody else has."""

import pytest
import torch

from fedguard.contracts.server import map_in_order
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.jobs import train_job
from fedguard.simulation.pool import Workers


def cell(attack="none", model="logistic_regression"):
    suite = Suite(
        data="digits",
        model=model,
        clients=5,
        malicious=1,
        rounds=2,
        training={"steps": 1, "batch_size": 8},
        attacks={"it": attack},
        defenses={"no": {}},
    )
    return suite.cells()[0]


def test_memory_serves_again_only_if_nobody_has_it():
    federation = Federation(cell())
    first = federation.advance(0).round.updates.matrix.data_ptr()
    kept = federation.advance(1).round.updates
    copy = kept.matrix.clone()
    other = federation.advance(2).round.updates
    assert kept.matrix.data_ptr() == first
    assert other.matrix.data_ptr() != first
    assert torch.equal(kept.matrix, copy)


def test_a_view_counts_as_having_it():
    federation = Federation(cell())
    row = federation.advance(0).round.updates.matrix[2]
    copy = row.clone()
    federation.advance(1)
    assert torch.equal(row, copy)


@pytest.mark.parametrize("attack", ["none", "ipm"])
def test_pieces_of_any_size_train_the_same(attack, monkeypatch):
    sizes = []

    def some_map(function, jobs):
        jobs = list(jobs)
        sizes.extend(len(job[1]) for job in jobs if function is train_job)
        return map_in_order(function, jobs)

    def trained(map):
        federation = Federation(cell(attack, model={"name": "mlp", "hidden": [9]}), map)
        return federation.advance(0).round.updates.matrix.clone()

    monkeypatch.setattr("fedguard.simulation.federation.TOGETHER", 2)
    assert torch.equal(trained(map_in_order), trained(some_map))
    assert max(sizes) == 2


@pytest.mark.slow  # starts processes
def test_workers_send_what_is_put_in_place_here():
    def sent(map):
        federation = Federation(cell("ipm", model={"name": "mlp", "hidden": [9]}), map)
        return torch.stack([federation.advance(k).round.updates.matrix.clone() for k in range(2)])

    with Workers(2) as pool:
        there = sent(pool.map)
    assert torch.equal(sent(Workers(0).map), there)
