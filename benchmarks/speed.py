"""The table of speed: every topic's rows, beside what is asked for.

    python benchmarks/speed.py [--quick] [--one-core] [--save] [topic …]

A topic is a module ``speed_<topic>.py`` next to this one; without any named, all are run. ``--quick`` takes
smaller inputs, ``--one-core`` gives both sides one thread and counts processor time, ``--save`` writes each
topic's section of benchmarks/results/speed.md as soon as it is measured. Peers that are not installed are
skipped: pip install -e ".[bench]".
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
from bench import table

HERE = Path(__file__).resolve().parent
PAGE = HERE / "results" / "speed.md"
HEAD = """# Speed

Ratios are medians over repeats of theirs / ours, run in turn in one process; memory is what a call adds to
the peak of the resident memory. Every section names its command.
"""


def main(arguments: list[str]) -> int:
    known = sorted(path.stem.removeprefix("speed_") for path in HERE.glob("speed_*.py"))
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("topics", nargs="*", metavar="topic", help=f"{', '.join(known)}; all without any")
    parser.add_argument("--quick", action="store_true", help="smaller inputs")
    parser.add_argument("--one-core", action="store_true", help="one thread for both sides, processor time")
    parser.add_argument("--save", action="store_true", help="write the topics to benchmarks/results/speed.md")
    options = parser.parse_args(arguments)  # bench.py looks for --one-core itself, when it is imported
    if unknown := sorted(set(options.topics) - set(known)):
        parser.error(f"unknown topic {unknown[0]}; there are {', '.join(known)}")
    failed = False
    for topic in options.topics or known:
        print(f"{topic} …", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            rows = importlib.import_module(f"speed_{topic}").rows(options.quick)
        except Exception as error:  # the other topics go on
            print(f"- {topic} failed: {type(error).__name__}: {error}")
            failed = True
            continue
        text = f"{table(rows)}\n\n{footer(topic, options, (time.perf_counter() - start) / 60)}"
        print(f"{text}\n", flush=True)
        if options.save:
            save(PAGE, topic, text)
    return int(failed)


def footer(topic: str, options: argparse.Namespace, minutes: float) -> str:
    """How and on what it was measured."""
    flags = "".join(f" --{name.replace('_', '-')}" for name in ("quick", "one_core") if vars(options)[name])
    load = f", load {os.getloadavg()[0]:.0f}" if hasattr(os, "getloadavg") else ""
    return (
        f"`python dev.py bench {topic}{flags}`: {minutes:.1f} minutes, {os.cpu_count()} cores "
        f"({platform.machine()}{load}), torch {torch.__version__}, NumPy {np.__version__}."
    )


def save(page: Path, topic: str, text: str) -> None:
    """Put a topic's section into the page; those of other topics stay as they are."""
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    sections = dict(part.split("\n", 1) for part in before.split("\n## ")[1:]) | {topic: text}
    body = [f"## {name}\n\n{sections[name].strip()}\n" for name in sorted(sections)]
    page.write_text("\n".join([HEAD, *body]), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
