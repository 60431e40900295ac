"""The table of speed: every topic's rows, beside what is asked for.

    python benchmarks/speed.py [--quick] [--one-core] [--save] [topic …]

A topic is a module ``speed_<topic>.py`` next to this one; without any named, all are run. ``--quick`` takes
smaller inputs, ``--one-core`` gives both sides one thread and counts processor time, ``--save`` writes
benchmarks/results/speed.md. Peers that are not installed are skipped: pip install -e ".[bench]".
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch
from bench import Row, table

HERE = Path(__file__).resolve().parent


def main(arguments: list[str]) -> int:
    known = sorted(path.stem.removeprefix("speed_") for path in HERE.glob("speed_*.py"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("topics", nargs="*", metavar="topic", help=f"{', '.join(known)}; all without any")
    parser.add_argument("--quick", action="store_true", help="smaller inputs")
    parser.add_argument("--one-core", action="store_true", help="one thread for both sides, processor time")
    parser.add_argument(
        "--save", action="store_true", help="write benchmarks/results/speed.md; needs all topics"
    )
    options = parser.parse_args(arguments)  # bench.py looks for --one-core itself, when it is imported
    if unknown := sorted(set(options.topics) - set(known)):
        parser.error(f"unknown topic {unknown[0]}; there are {', '.join(known)}")
    if options.save and options.topics:
        parser.error("--save writes the page of all topics; leave out the topics, or --save")
    topics = options.topics or known
    start, found, failed = time.perf_counter(), list[Row](), []
    for topic in topics:
        print(f"{topic} …", file=sys.stderr, flush=True)
        try:
            found += importlib.import_module(f"speed_{topic}").rows(options.quick)
        except Exception as error:  # the other topics go on
            failed.append(f"- {topic} failed: {type(error).__name__}: {error}")
    minutes = (time.perf_counter() - start) / 60
    text = "\n".join([table(found), "", *failed, footer(arguments, minutes)])
    print(text)
    if options.save:
        (HERE / "results" / "speed.md").write_text(f"# Speed\n\n{text}\n")
    return 1 if failed else 0


def footer(arguments: list[str], minutes: float) -> str:
    """How and on what it was measured."""
    load = f", load {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    return (
        f"`python dev.py bench {' '.join(arguments)}`: {minutes:.0f} minutes, {os.cpu_count()} cores "
        f"({platform.machine()}{load}), torch {torch.__version__}, NumPy {np.__version__}. Ratios are "
        "medians over repeats of theirs / ours, run in turn in one process; memory is what a call adds to "
        "the peak of the resident memory."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
