"""Local training: 100 clients with 600 samples each, one epoch in batches of 32.

    python benchmarks/speed_local_training.py [--quick] [--workers 4] [--threads 4]

Ours is what a simulated federation does in a round: a pool of single-thread workers that is there already,
one normalized data set mapped by all of them, clients of small networks side by side. Theirs is the usual
loop, one client after the other, with ``torch.optim.SGD`` and all cores (or ``--threads``) for torch. Both
see the same batches.

The data are Fashion-MNIST if FEDGUARD_DATA says where it lies, else noise of the same shape.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from bench import Row, compare, largest_difference, show
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.data import Samples
from fedguard.core.seeds import generator
from fedguard.simulation.datasets import Dataset, load_dataset
from fedguard.simulation.federation import Federation
from fedguard.simulation.pool import Workers
from fedguard.simulation.settings import Cell
from fedguard.simulation.setup import Setup

BATCH, LR, SEED = 32, 0.01, 0


def cnn() -> nn.Module:
    """FedREDefense's network for Fashion-MNIST as its table is usually written down."""
    return nn.Sequential(
        nn.Conv2d(1, 30, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(30, 50, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1250, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def logistic_regression() -> nn.Module:
    """One linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))


def mlp() -> nn.Module:
    """One hidden layer of 32."""
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10))


MODELS = {
    "CNN": ({"name": "fedredefense_fmnist_cnn"}, cnn, 3.0),
    "logistic regression": ({"name": "logistic_regression"}, logistic_regression, 8.0),
    "perceptron with 32 hidden units": ({"name": "mlp", "hidden": [32]}, mlp, None),
}


def usual_loop(model: nn.Module, setup: Setup, start: Tensor) -> Tensor:
    """(clients, d) the updates, one client after the other."""
    whole = setup.dataset.training_set
    updates = []
    for client, rows in enumerate(setup.samples):
        inputs, labels = whole.inputs[rows], whole.labels[rows]
        nn.utils.vector_to_parameters(start.clone(), model.parameters())
        optimizer = torch.optim.SGD(model.parameters(), lr=LR)
        order = torch.randperm(len(rows), generator=generator(SEED, "batches", 0, client))
        for batch in order.split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(model(inputs[batch]), labels[batch]).backward()
            optimizer.step()
        updates.append(nn.utils.parameters_to_vector(model.parameters()).detach() - start)
    return torch.stack(updates)


def dataset(quick: bool, clients: int) -> Dataset:
    """Fashion-MNIST, or noise of its shape; as many samples as the clients need."""
    if os.environ.get("FEDGUARD_DATA") and not quick:
        return load_dataset("fashion_mnist")
    draw = torch.Generator().manual_seed(SEED)
    count = (60 if quick else 600) * clients
    train = Samples(torch.rand(count, 1, 28, 28, generator=draw), torch.arange(count) % 10)
    return Dataset("fashion_mnist", train, train.take(torch.arange(100)), 10, (0.5,), (0.29,))


@contextmanager
def federation(data: Dataset, model: dict[str, object], clients: int, workers: int) -> Iterator[Federation]:
    """A federation whose workers run, and have trained once."""
    cell = Cell.model_validate(
        {
            "data": data.name,
            "model": model,
            "clients": clients,
            "training": {"epochs": 1, "batch_size": BATCH, "lr": LR},
            "attack_label": "none",
            "attack": {"name": "none"},
            "defense_label": "none",
            "defense": {},
            "seed": SEED,
        }
    )
    with Workers(workers, {data.name: data}) as pool:
        built = pool.here(Federation, cell, pool.map)
        built.pool = pool  # type: ignore[attr-defined]
        pool.here(built._train, list(range(clients)), set(), 0)
        yield built


def private_memory(pool: Workers) -> float:
    """MiB that one worker has for itself, on average: what is mapped by all does not count (Linux only)."""
    found = []
    for process in pool._executor._processes.values() if pool._executor else ():
        try:
            lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            return float("nan")
        found.append(sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty")) / 1024)
    return sum(found) / max(len(found), 1)


def rows(quick: bool, workers: int | None = None, threads: int | None = None) -> list[Row]:
    """One line for each model."""
    clients, count = (8 if quick else 100), workers or os.cpu_count() or 1
    data = dataset(quick, clients)
    _ = data.training_set
    found = []
    for name, (settings, plain, target) in MODELS.items():
        with federation(data, settings, clients, count) as ours:
            everybody, setup, pool = list(range(clients)), ours.setup, ours.pool  # type: ignore[attr-defined]
            model = plain()
            row = compare(
                f"local training, {clients} clients × {len(setup.samples[0])} samples, {name}",
                "plain sequential loop",
                target,
                lambda train=ours._train, pool=pool, everybody=everybody: (
                    pool.here(train, everybody, set(), 0).updates
                ),
                lambda model=model, setup=setup: usual_loop(model, setup, setup.initial),
                largest_difference,
                threads=threads,
                note=f"{count} workers with {private_memory(pool):.0f} MiB each besides the shared data",
            )
            found.append(row)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--threads", type=int, help="of the usual loop")
    given = parser.parse_args()
    show(rows(given.quick, given.workers, given.threads))


if __name__ == "__main__":
    main()
