"""From which size of network do several threads train the clients of one federation faster than one?

    python benchmarks/client_threads.py [--threads N] [--repeats N]

Each federation runs its rounds on one thread and on several, in turns, in one process; wall time. The results
have to be the same bits. *µs per module* is how long a forward pass of a batch takes, over the number of
modules: below :data:`fedguard.simulation.threaded.SECONDS_PER_MODULE`, FedGuard trains on one thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from end_to_end_sides import Ours
from torch import nn

from fedguard.core.threads import blocks_on, single_thread
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation import threaded
from fedguard.simulation.settings import Cell
from fedguard.simulation.setup import setup_for
from fedguard.simulation.threaded import Threads

ROUNDS = 2
CLASSES = 10


def dense(width: int) -> nn.Module:
    """Three layers of tanh, which FedGuard trains by autograd."""
    parts = [nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
    return nn.Sequential(*parts, nn.Linear(width, CLASSES))


def convolutions(channels: int) -> nn.Module:
    """Two convolutions for images of 8×8."""
    first = [nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    second = [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*first, *second, nn.Flatten(), nn.Linear(4 * channels, CLASSES))


def cell_of(model: Any, batch: int, data: Any = "digits") -> Cell:
    """Twenty clients, five steps each, that are not tested meanwhile."""
    suite = Suite(
        data=data,
        model=model,
        clients=20,
        malicious=0,
        rounds=10_000,
        test_every=10_000,
        training={"steps": 5, "batch_size": batch, "lr": 0.05},
        attacks={"none": "none"},
        defenses={"mean": {}},
    )
    return suite.cells()[0]


def cells() -> dict[str, Cell]:
    """The federations by name, from small to large."""
    found = {}
    for batch in (16, 64):
        for size in (32, 200, 500):
            model = {"name": "client_threads:dense", "width": size}
            found[f"three layers of {size}, batches of {batch}"] = cell_of(model, batch)
        for size in (8, 32):
            model = {"name": "client_threads:convolutions", "channels": size}
            found[f"two convolutions of {size}, batches of {batch}"] = cell_of(model, batch)
    noise = {"name": "end_to_end_sides:small_noise", "count": 1000}
    found["CNN of 431,080 parameters, batches of 25"] = cell_of("end_to_end_sides:cnn", 25, noise)
    found["resnet20, batches of 16"] = cell_of("resnet20", 16)
    return found


@torch.no_grad()
def per_module(cell: Cell) -> float:
    """Seconds of a forward pass of a batch over the number of modules, the least of five."""
    setup = setup_for(cell)
    batch = setup.dataset.training_set.inputs[: setup.training.batch_size]
    with single_thread():
        least = min(seconds(lambda: setup.model(batch)) for _ in range(5))
    return least / len(list(setup.model.modules()))


def seconds(function: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measured(cell: Cell, threads: int, repeats: int) -> tuple[float, float, bool]:
    """Seconds of a round on one thread and on several, and whether the results are the same bits."""
    with single_thread():
        one, several = Ours(cell, ROUNDS), Ours(cell, ROUNDS, Threads(threads))

        def run() -> Any:
            with blocks_on(threads):
                return several()

        same = torch.equal(one(), run())
        pairs = [(seconds(one), seconds(run)) for _ in range(repeats)]
    first, second = (statistics.median(column) / ROUNDS for column in zip(*pairs, strict=True))
    return first, second, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    threaded.SECONDS_PER_MODULE = 0.0  # whether it pays or not
    print(f"{given.threads} threads, {os.cpu_count()} cores, torch {torch.__version__}, wall time\n")
    print("| federation | µs per module | ms per round, one thread | several | times as fast | same bits |")
    print("|:--|--:|--:|--:|--:|:--|")
    for name, cell in cells().items():
        each = 1e6 * per_module(cell)
        one, several, same = measured(cell, given.threads, given.repeats)
        row = [name, f"{each:.0f}", f"{1e3 * one:.1f}", f"{1e3 * several:.1f}", f"{one / several:.2f}"]
        print("| " + " | ".join([*row, "yes" if same else "NO"]) + " |", flush=True)


if __name__ == "__main__":
    main()
