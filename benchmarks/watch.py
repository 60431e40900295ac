"""Watch the ratios of the speed comparisons: measure the quick rows, flag what lost a fifth, keep a history.

    python benchmarks/watch.py [--history FILE] [--save] [topic …]

Seconds differ from machine to machine and from day to day; a ratio of two sides that ran in turn in one
process, each on one thread and in processor time, hardly does. Every row's ratio is compared with the median
of its last five on the same kind of machine. A row below 0.8 of it is measured again, and is flagged if it is
low both times; the exit status is then 1. ``--save`` appends the ratios to the history, flagged ones too:
a loss that is accepted becomes what later runs are compared with.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import importlib
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import bench
import torch

HERE = Path(__file__).resolve().parent
HISTORY = HERE / "results" / "history.csv"
#: What runs in a few minutes and needs no data set.
TOPICS = ("aggregation", "detection", "kernels")
LOSS, WINDOW = 0.8, 5


class Point(NamedTuple):
    """A measured ratio, a line of the history."""

    date: str
    commit: str
    machine: str
    work: str
    against: str
    ratio: float


def read(file: Path) -> list[Point]:
    """The history, oldest first."""
    if not file.exists():
        return []
    with file.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    return [Point(*(row[k] for k in Point._fields[:5]), ratio=float(row["ratio"])) for row in rows]


def append(file: Path, points: Iterable[Point]) -> None:
    """Add lines to the history."""
    new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as lines:
        out = csv.writer(lines, lineterminator="\n")
        out.writerows([Point._fields] if new else [])
        out.writerows((*point[:-1], f"{point.ratio:.3g}") for point in points)


def usual(point: Point, history: list[Point]) -> float | None:
    """The median of the last ratios of the same row on the same kind of machine; None without any."""
    like = [p.ratio for p in history if p[2:5] == point[2:5]]
    return statistics.median(like[-WINDOW:]) if like else None


def lost(points: list[Point], history: list[Point]) -> list[Point]:
    """The points whose ratio fell by more than a fifth."""
    before = [usual(point, history) for point in points]
    return [
        p for p, ratio in zip(points, before, strict=True) if ratio is not None and p.ratio < LOSS * ratio
    ]


def machine() -> str:
    """Processor, cores and torch: ratios of different ones are not compared."""
    names = [platform.processor() or platform.machine()]
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")] or names
    return f"{names[0]}, torch {torch.__version__}"


def measure(topic: str) -> list[Point]:
    """The quick rows of a topic that could be measured."""
    where, today = machine(), datetime.date.today().isoformat()
    command = ["git", "describe", "--always", "--dirty"]
    said = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)  # noqa: S603
    rows = importlib.import_module(f"speed_{topic}").rows(True)
    commit = said.stdout.strip() or "unknown"
    return [Point(today, commit, where, r.work, r.against, r.ratio) for r in rows if r.ratio is not None]


def measured(topic: str, history: list[Point]) -> tuple[list[Point], list[Point]]:
    """(points, those that are low twice) of a topic; a low row counts with the better of two measurements."""
    points = measure(topic)
    if not (low := lost(points, history)):
        return points, []
    again = {point[3:5]: point for point in measure(topic)}
    low_names = {point[3:5] for point in low}
    best = [max(p, again.get(p[3:5], p), key=lambda x: x.ratio) if p[3:5] in low_names else p for p in points]
    return best, [point for point in lost(best, history) if point[3:5] in low_names]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("topics", nargs="*", default=list(TOPICS), help="modules speed_TOPIC.py")
    parser.add_argument("--history", type=Path, default=HISTORY)
    parser.add_argument("--save", action="store_true", help="append to the history")
    args = parser.parse_args(arguments)
    bench.use_one_core()
    history, flagged = read(args.history), list[Point]()
    for topic in args.topics:
        points, low = measured(topic, history)
        flagged += low
        for point in points:
            before = usual(point, history)
            was = "new" if before is None else f"was {before:.3g}×"
            mark = "  LOST A FIFTH" if point in low else ""
            print(f"{point.work}, {point.against}: {point.ratio:.3g}× ({was}){mark}", flush=True)
        if args.save:
            append(args.history, points)
    print(f"{len(flagged)} flagged on {machine()}")
    return 1 if flagged else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
