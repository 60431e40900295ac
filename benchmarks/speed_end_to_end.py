"""Whole simulated federations: FedGuard against a plain PyTorch loop, byzfl's loop, Flower's simulation, and
the limit that the gradients set.

    python benchmarks/speed_end_to_end.py [--quick] [--one-core] [--save] [--all] [--only NAME]
        [--repeats N]

Each client takes one step of SGD on 25 samples per round. The limit is the clients' gradients alone (forward
and backward pass; batches lie ready, nothing is kept) in the fastest form on the same threads: a plain loop
in either memory order of images, one such loop per thread, ``torch.func.vmap``, and for logistic regression
one batched product. The share of the limit is its time / FedGuard's. ``--all`` adds 1,000 clients and
ResNet-18. ``--one-core`` counts processor time on one thread; without it, all cores are used as well. Missing
peers are skipped.
"""

from __future__ import annotations

import argparse
import cProfile
import dataclasses
import os
import platform
import pstats
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import end_to_end_flower
import numpy as np
import torch
from bench import (
    ONE_CORE,
    Row,
    by_speed,
    compare,
    largest_difference,
    limited,
    peer,
    seconds,
    skipped,
    version,
)
from end_to_end_sides import (
    BATCH,
    LR,
    Byzfl,
    Ours,
    PlainLoop,
    limits,
    plain_mean,
    plain_nnm_trimmed,
)

from fedguard.core.threads import blocks_on, single_thread
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.settings import Cell
from fedguard.simulation.setup import setup_for
from fedguard.simulation.threaded import Threads

MODELS = {
    "logistic regression": ("end_to_end_sides:logistic", "end_to_end_sides:small_noise"),
    "CNN": ("end_to_end_sides:cnn", "end_to_end_sides:small_noise"),
    "ResNet-18": ("resnet18", "end_to_end_sides:color_noise"),
}
#: A defense: its settings, whether a fifth of the clients attacks (IPM), and the share of the limit to reach.
DEFENSES: dict[str, tuple[dict[str, Any], bool, float]] = {
    "mean": ({}, False, 0.75),
    "Krum": ({"detector": "krum"}, True, 0.6),
    "NNM, trimmed mean": ({"stages": "nearest_neighbor_mixing", "aggregator": "trimmed_mean"}, True, 0.6),
    "median": ({"aggregator": "median"}, True, 0.6),
}


LIMIT = "limit: "
PAGE = Path(__file__).resolve().parent / "results" / "end_to_end.md"


@dataclass(frozen=True)
class Case:
    """A federation.

    Attributes:
        model: a key of :data:`MODELS`.
        clients: how many.
        rounds: per measurement.
        defenses: keys of :data:`DEFENSES`.
        repeats: measurements.
    """

    model: str
    clients: int
    rounds: int
    defenses: tuple[str, ...] = field(default=("mean", "NNM, trimmed mean"))
    repeats: int = 5


QUICK = (Case("logistic regression", 10, 2, repeats=1), Case("CNN", 5, 1, repeats=1))
USUAL = (
    Case("logistic regression", 10, 40),
    Case("logistic regression", 100, 10),
    Case("CNN", 10, 4),
    Case("CNN", 25, 1, tuple(DEFENSES)),
    Case("CNN", 100, 1),
)
ALL = (
    Case("logistic regression", 1000, 2, ("mean",)),
    Case("CNN", 1000, 1, ("mean",), 3),
    Case("ResNet-18", 10, 1, ("mean", "Krum"), 3),
)


def cell_of(case: Case, defense: str) -> Cell:
    """The settings of a federation that is not tested while it is measured."""
    model, data = MODELS[case.model]
    settings, attacked, _ = DEFENSES[defense]
    suite = Suite(
        data={"name": data, "count": max(1000, 2 * BATCH * case.clients)},
        model=model,
        clients=case.clients,
        malicious=case.clients // 5 if attacked else 0,
        rounds=10_000,
        test_every=10_000,
        training={"steps": 1, "batch_size": BATCH, "lr": LR},
        attacks={"ipm": "ipm"} if attacked else {"none": "none"},
        defenses={defense: settings},
    )
    return suite.cells()[0]


@contextmanager
def federated(cell: Cell, rounds: int, threads: int) -> Iterator[Callable[[], Any]]:
    """FedGuard's side, on so many threads: as the only run of a suite with so many workers."""
    with single_thread():
        ours = Ours(cell, rounds, Threads(threads))
    with blocks_on(threads):
        yield under_one_thread(ours)


def under_one_thread(side: Callable[[], Any]) -> Callable[[], Any]:
    """A side that gives torch one thread, whatever the comparison gives it."""

    def run() -> Any:
        with single_thread():
            return side()

    return run


def against(case: Case, defense: str, threads: int) -> Iterator[Row]:
    """The rows of one federation."""
    cell, (_, attacked, target) = cell_of(case, defense), DEFENSES[defense]
    setup, rounds = setup_for(cell), case.rounds
    who = f"{case.model}, {case.clients} clients, {defense}{', IPM' if attacked else ''}"
    how = {"threads": threads, "repeats": case.repeats}
    name, limit = next(iter(by_speed(limits(setup, rounds, threads), threads).items()))
    with federated(cell, rounds, threads) as ours:
        yield per_round(compare(who, f"{LIMIT}{name}", target, ours, limit, lambda *_: "", **how), rounds)
    sides: dict[str, Callable[[], Any]] = {}
    f = cell.malicious
    combine = {"mean": plain_mean, "NNM, trimmed mean": plain_nnm_trimmed(f)}.get(defense)
    if combine is None or case.model == "ResNet-18" or case.clients > 100:
        return
    sides["plain loop"] = PlainLoop(setup, rounds, attacked, combine)
    package = peer("byzfl")
    if package is None:
        yield skipped(who, "byzfl", 4.0)
    else:
        rule, stages = ("TrMean", ["NNM"]) if attacked else ("Average", [])
        sides[version("byzfl")] = Byzfl(package, setup, rounds, attacked, rule, stages)
    for against_whom, theirs in sides.items():
        asked = 4.0 if against_whom.startswith("byzfl") else None
        with federated(cell, rounds, threads) as ours:
            yield per_round(
                compare(who, against_whom, asked, ours, theirs, largest_difference, **how), rounds
            )


def per_round(row: Row, rounds: int) -> Row:
    """The row with the seconds of one round."""
    return dataclasses.replace(row, ours=row.ours / rounds, theirs=row.theirs / rounds)


def flower(model: str, clients: int = 10) -> Row:
    """FedGuard with all cores against Flower's simulation; wall time, so not with ``--one-core``."""
    who, threads = f"{model}, {clients} clients, mean", os.cpu_count() or 1
    if ONE_CORE:
        return skipped(who, "Flower", 10.0, "it uses all cores")
    if not end_to_end_flower.available():
        return skipped(who, "Flower", 10.0)
    theirs = end_to_end_flower.seconds_per_round(model, clients)
    rounds = 10
    with limited(1):
        ours = Ours(cell_of(Case(model, clients, rounds), "mean"), rounds)
        ours()
        own = min(seconds(ours) for _ in range(3)) / rounds
    note = f"{version('ray')} on {threads} cores, FedGuard on one thread"
    return Row(who, version("flwr"), 10.0, theirs / own, own, theirs, threads=1, repeats=3, note=note)


def measured(quick: bool, whole: bool = False, only: str = "", repeats: int | None = None) -> Iterator[Row]:
    """All federations, or those whose name has ``only`` in it, each against its limit and its peers."""
    every = [1] if ONE_CORE or quick else [1, os.cpu_count() or 1]
    for case in QUICK if quick else USUAL + (ALL if whole else ()):
        for defense in case.defenses:
            for threads in every if only in f"{case.model}, {case.clients} clients, {defense}" else ():
                start = time.perf_counter()
                yield from against(
                    dataclasses.replace(case, repeats=repeats or case.repeats), defense, threads
                )
                took = time.perf_counter() - start
                print(f"{case.model}, {case.clients}, {defense}: {took:.0f} s", file=sys.stderr, flush=True)
    if not quick:
        names = end_to_end_flower.MODELS
        yield from (flower(name) for name in names if only in f"{name}, 10 clients, mean")


def rows(quick: bool) -> list[Row]:
    """The usual federations."""
    return list(measured(quick))


#: What a profile sums up, in the order of a round.
PARTS = ("_train", "forward", "grad", "hold", "_step", "_from", "_craft", "_decide", "_gram", "aggregate")


def profiled(only: str, rounds: int = 5) -> str:
    """Milliseconds of processor time per round of the federations with ``only`` in their name, by function.

    Functions contain each other: ``grad`` and ``forward`` are in ``_train``.
    """
    lines = []
    for case in USUAL + ALL:
        for defense in case.defenses:
            name = f"{case.model}, {case.clients} clients, {defense}"
            if only not in name:
                continue
            with limited(1):
                ours, profile = Ours(cell_of(case, defense), rounds), cProfile.Profile(time.process_time)
                ours()
                profile.runcall(ours)
            total: dict[str, float] = {}
            for (_, _, function), values in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
                total[function] = max(total.get(function, 0.0), values[3])
            parts = [f"{part} {1e3 * total[part] / rounds:.0f}" for part in PARTS if part in total]
            lines.append(f"{name}: {1e3 * total['__call__'] / rounds:.0f} ms: {', '.join(parts)}")
    return "\n".join(lines) + "\n"


HEAD = """# Whole federations

`python benchmarks/speed_end_to_end.py{options}`: {cores} cores ({machine}), torch {torch}, NumPy {numpy};
{time}.

Every client takes one step of SGD on {batch} samples per round; the global model is not tested
meanwhile. In rows with IPM a fifth of the clients attacks. *Limit*: the gradients of all clients alone,
forward and backward pass, in the fastest of a plain loop in either memory order of images, one such loop
per thread, `torch.func.vmap`, and for logistic regression one batched product, on the same threads.
*Ratio*: their time over FedGuard's, side by side in one process, the median over the repeats; against the
limit it is the share of the limit. The plain loop and byzfl run the same federation on the same batches;
*results* says how far their global parameters are from FedGuard's after the first measurement. A ratio below
what is asked for is **bold**.

"""


def page(found: list[Row], options: str) -> str:
    """The measurements as Markdown."""
    time_ = "processor time" if ONE_CORE else "wall time"
    head = HEAD.format(
        options=options,
        cores=os.cpu_count(),
        machine=platform.machine(),
        torch=torch.__version__,
        numpy=np.__version__,
        time=time_,
        batch=BATCH,
    )
    lines = [
        "| federation | threads | ms per round | against | their ms per round | ratio | at least | results |",
        "|:--|--:|--:|:--|--:|--:|--:|:--|",
    ]
    for row in found:
        if row.ratio is None:
            lines.append(f"| {row.work} | | | {row.against} | | {row.note} | {_times(row.target)} | |")
            continue
        name = f"*{row.against}*" if row.against.startswith(LIMIT) else row.against
        ratio = f"{row.ratio:.2f}" if row.met is not False else f"**{row.ratio:.2f}**"
        cells = [row.work, row.threads, f"{1e3 * row.ours:.3g}", name, f"{1e3 * row.theirs:.3g}", ratio]
        lines.append(
            "| " + " | ".join(map(str, [*cells, _times(row.target), row.agreement or row.note])) + " |"
        )
    return head + "\n".join(lines) + "\n"


def _times(target: float | None) -> str:
    return "" if target is None else f"{target:g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny federations, one repeat")
    parser.add_argument("--one-core", action="store_true", help="processor time, see bench.py")
    parser.add_argument("--all", action="store_true", help="1,000 clients and ResNet-18, too")
    parser.add_argument("--only", default="", help='federations with this in their name: "CNN, 25 clients"')
    parser.add_argument("--repeats", type=int, help="measurements of each side")
    parser.add_argument("--profile", action="store_true", help="only where FedGuard's time goes")
    parser.add_argument("--save", action="store_true", help=f"write {PAGE.name}")
    given = parser.parse_args()
    if given.profile:
        sys.stdout.write(profiled(given.only))
        return
    options = "".join(f" {shlex.quote(name)}" for name in sys.argv[1:] if name != "--save")
    found: list[Row] = []
    for row in measured(given.quick, given.all, given.only, given.repeats):
        found.append(row)
        if given.save:  # what there is, if the rest takes too long
            PAGE.write_text(page(found, options), encoding="utf-8")
    sys.stdout.write(page(found, options))


if __name__ == "__main__":
    main()
