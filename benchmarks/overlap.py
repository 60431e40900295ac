"""Does it pay to test the model of a round in a thread beside the training of the next round?

    python benchmarks/overlap.py [--repeats N]

Each federation runs its rounds twice, in turns: as FedGuard does, testing after each round, and with the test
in a thread of its own while the next round trains. ``alone`` is one run at a time, with a core to spare for
the thread; ``all cores`` is one run per core, side by side, as ``fedguard evaluate`` runs a suite. Wall time;
one thread for each run and for each test. The results have to be the same bits.
"""

from __future__ import annotations

import argparse
import copy
import multiprocessing
import os
import statistics
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedguard.contracts.data import Samples
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.client_data import evaluation_batches
from fedguard.simulation.datasets import Dataset
from fedguard.simulation.federation import Federation
from fedguard.simulation.keys import CellKey
from fedguard.simulation.settings import Cell
from fedguard.training.parameters import wrong_and_loss

Measured = tuple[float, float]


def noise(count: int) -> Dataset:
    """As many gray images of 28×28, and a sixth as many for testing, as MNIST has."""
    draw = torch.Generator().manual_seed(0)
    train, test = (
        Samples(torch.rand(some, 1, 28, 28, generator=draw), torch.arange(some) % 10)
        for some in (count, count // 6)
    )
    return Dataset("noise", train, test, 10, (0.5,), (0.29,))


@dataclass(frozen=True)
class Case:
    """A federation.

    Attributes:
        name: what the table calls it.
        settings: of its suite.
        rounds: per measurement.
    """

    name: str
    settings: dict[str, Any]
    rounds: int


NOISE = {"name": "overlap:noise", "count": 6_000}
CASES = (
    Case(
        "perceptron on digits, 20 clients, 2 epochs",
        {
            "data": "digits",
            "model": {"name": "mlp", "hidden": [32]},
            "clients": 20,
            "training": {"epochs": 2, "batch_size": 16, "lr": 0.1},
        },
        20,
    ),
    Case(
        "CNN, 25 clients, one step of 25 samples each",
        {
            "data": NOISE,
            "model": "end_to_end_sides:cnn",
            "clients": 25,
            "training": {"steps": 1, "batch_size": 25},
        },
        3,
    ),
    Case(
        "CNN, 25 clients, one epoch of 6,000 samples",
        {
            "data": NOISE,
            "model": "end_to_end_sides:cnn",
            "clients": 25,
            "training": {"epochs": 1, "batch_size": 25},
        },
        1,
    ),
)


class Tester:
    """Tests global models with a model of its own, so that training may use the federation's meanwhile."""

    def __init__(self, cell: Cell, federation: Federation) -> None:
        self.model = copy.deepcopy(federation.setup.model)
        self.batches = evaluation_batches(CellKey.of(cell), targeted=False)

    def __call__(self, params: Tensor) -> Measured:
        """The share of wrong predictions, and the mean loss."""
        torch.set_num_threads(1)
        found = [wrong_and_loss(self.model, params.clone(), batch) for batch in self.batches]
        count = sum(len(batch.labels) for batch in self.batches)
        return sum(wrong for wrong, _ in found) / count, sum(loss for _, loss in found) / count


def in_turn(federation: Federation, test: Tester, rounds: range) -> list[Measured]:
    """Train, test, train, test."""
    found = []
    for index in rounds:
        federation.advance(index)
        found.append(test(federation.params))
    return found


def overlapping(federation: Federation, test: Tester, rounds: range) -> list[Measured]:
    """Test each model while the next round trains."""
    with ThreadPoolExecutor(1) as thread:
        tests: list[Future[Measured]] = []
        for index in rounds:
            federation.advance(index)
            tests.append(thread.submit(test, federation.params))
        return [one.result() for one in tests]


def measure(case: Case, repeats: int, barrier: Any = None) -> tuple[list[float], float]:
    """Per repeat, the seconds in turn over those overlapping; and testing's share of the time in turn."""
    torch.set_num_threads(1)
    cell = Suite(**case.settings, rounds=10_000, test_every=10_000).cells()[0]
    sides = [(way, Federation(cell)) for way in (in_turn, overlapping)]
    test = Tester(cell, sides[0][1])
    ratios, share = [], 0.0
    for repeat in range(repeats + 1):  # the first warms up
        seconds, results = [], []
        for way, federation in sides:
            if barrier is not None:
                barrier.wait()
            start = time.perf_counter()
            results.append(way(federation, test, range(repeat * case.rounds, (repeat + 1) * case.rounds)))
            if barrier is not None:
                barrier.wait()  # the machine is busy until the last run is done
            seconds.append(time.perf_counter() - start)
        assert results[0] == results[1], "the same bits"
        if repeat:
            ratios.append(seconds[0] / seconds[1])
            start = time.perf_counter()
            for _ in range(case.rounds):
                test(sides[0][1].params)
            share += (time.perf_counter() - start) / seconds[0] / repeats
    return ratios, share


def _in_process(case: Case, repeats: int, barrier: Any, queue: Any) -> None:
    queue.put(measure(case, repeats, barrier))


def side_by_side(case: Case, repeats: int, count: int) -> list[float]:
    """The ratios with one run per core."""
    spawn = multiprocessing.get_context("spawn")
    barrier, queue = spawn.Barrier(count), spawn.Queue()
    some = [spawn.Process(target=_in_process, args=(case, repeats, barrier, queue)) for _ in range(count)]
    for process in some:
        process.start()
    ratios = [queue.get()[0] for _ in some]
    for process in some:
        process.join()
    return ratios[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats, cores = parser.parse_args().repeats, os.cpu_count() or 1
    print(f"torch {torch.__version__}, {cores} cores; load at the start: {os.getloadavg()[0]:.1f}\n")
    print("| federation | testing's share of the time | in turn / overlapping: alone | all cores |")
    print("|:--|--:|--:|--:|")
    for case in CASES:
        alone, share = measure(case, repeats)
        busy = side_by_side(case, repeats, cores)
        cells = [f"{statistics.median(some):.2f} ({min(some):.2f}–{max(some):.2f})" for some in (alone, busy)]
        print(f"| {case.name} | {share:.0%} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
