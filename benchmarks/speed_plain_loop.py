"""A FedGuard federation beside a plain FedAvg loop in PyTorch: rounds per second and peak memory.

    python benchmarks/speed_plain_loop.py [--quick] [--one-core] [--out FILE]

Both sides train the same model on the same data, clients and batches, on one thread, and test the global
model after every round. The plain loop is what one writes in a notebook: a model, ``torch.optim.SGD``,
``backward``, and the weighted mean of the parameters. FedGuard's side does its work: it judges every round
(with Krum in one line of three), keeps records of all clients, and computes metrics.
"""

from __future__ import annotations

import argparse
import copy
import sys
from pathlib import Path
from typing import Any

import torch
from bench import ONE_CORE, Row, compare
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.core.seeds import generator
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.settings import Cell
from fedguard.simulation.setup import Setup, setup_for
from fedguard.training.parameters import flat_parameters, load_parameters

MODELS: dict[str, dict[str, Any]] = {
    "perceptron": {"model": {"name": "mlp", "hidden": [200]}},
    "perceptron by Adam": {
        "model": {"name": "mlp", "hidden": [200]},
        "training": {"epochs": 1, "batch_size": 16, "lr": 0.01, "optimizer": "adam"},
    },
    "ResNet-20": {"model": "resnet20", "clients": 4, "rounds": 1},
}
BASE: dict[str, Any] = {
    "data": "digits",
    "clients": 20,
    "rounds": 10,
    "training": {"epochs": 1, "batch_size": 16, "lr": 0.1},
}


def plain_loop(setup: Setup, rounds: int) -> Tensor:
    """FedAvg as one writes it in a notebook; the final global parameters."""
    data, test, settings, seed = setup.dataset.training_set, setup.test, setup.training, setup.cell.seed
    model, params = copy.deepcopy(setup.model), setup.initial
    kind = torch.optim.Adam if settings.optimizer == "adam" else torch.optim.SGD
    for index in range(rounds):
        total, count = torch.zeros_like(params), 0
        for client, rows in enumerate(setup.samples):
            load_parameters(model, params)
            model.train()
            optimizer = kind(model.parameters(), lr=settings.lr)
            draw = generator(seed, "batches", index, client)
            for _ in range(settings.epochs or 1):
                for batch in torch.split(
                    rows[torch.randperm(len(rows), generator=draw)], settings.batch_size
                ):
                    optimizer.zero_grad()
                    F.cross_entropy(model(data.inputs[batch]), data.labels[batch]).backward()
                    optimizer.step()
            total += len(rows) * flat_parameters(model)
            count += len(rows)
        params = total / count
        load_parameters(model, params)
        model.eval()
        with torch.no_grad():
            (model(test.inputs).argmax(1) == test.labels).float().mean()
    return params


def federated(cell: Cell) -> Tensor:
    """FedGuard's side; the final global parameters."""
    federation = Federation(cell)
    federation.run()
    return federation.params


def difference(ours: Tensor, theirs: Tensor) -> str:
    """How far the final parameters are apart."""
    return f"parameters differ by at most {(ours - theirs).abs().max():.1e}"


def rows(quick: bool) -> list[Row]:
    """A line per model, and one with a detector."""
    found = []
    for name, settings in MODELS.items():
        few = {"rounds": 1} if quick else {}
        base = {**BASE, **settings, **few}
        defenses = {"none": {}, "Krum": {"detector": "krum", "policy": "observe"}}
        for cell in Suite(**base, defenses=defenses).cells():
            if cell.defense_label == "Krum" and name != "perceptron":
                continue
            setup = setup_for(cell)
            work = f"{name}, {cell.clients} clients, {cell.rounds} round(s), defense: {cell.defense_label}"
            ours, theirs = (
                lambda cell=cell: federated(cell),
                lambda setup=setup, cell=cell: plain_loop(setup, cell.rounds),
            )
            found.append(compare(work, "plain loop", None, ours, theirs, difference, threads=1))
    return found


def page(found: list[Row], quick: bool) -> str:
    """The measurements as Markdown."""
    flags = f"{' --quick' if quick else ''}{' --one-core' if ONE_CORE else ''}"
    time = "processor time" if ONE_CORE else "time"
    lines = [
        "# A federation beside a plain loop",
        "",
        f"`python benchmarks/speed_plain_loop.py{flags}`: digits, one thread, torch {torch.__version__}. The",
        f"ratio (of {time}) is the median over {found[0].repeats} repeats of neighboring runs: above 1,",
        "FedGuard is faster. Extra memory is the peak that a run adds.",
        "",
        "| work | ratio | rounds per second: FedGuard / plain | extra MiB: FedGuard / plain | results |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        rounds = int(row.work.split(" round(s)")[0].rsplit(" ", 1)[1])
        speed = f"{rounds / row.ours:.3g} / {rounds / row.theirs:.3g}"
        memory = f"{row.our_memory:.3g} / {row.their_memory:.3g}"
        lines.append(f"| {row.work} | {row.ratio:.2f}× | {speed} | {memory} | {row.agreement} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one-core", action="store_true", help="processor time, see bench.py")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = page(rows(given.quick), given.quick)
    sys.stdout.write(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")
