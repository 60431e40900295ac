"""Regenerate a paper's tables: published beside measured.

    python benchmarks/papers/reproduce.py fang2020/mnist_lr --data-root path/to/data --workers 4
    python benchmarks/papers/reproduce.py fang2020/mnist_lr --quick      # embedded data, to see it run
    python benchmarks/papers/reproduce.py fang2020/mnist_lr --estimate   # what the whole suite takes

Runs the suite ``<name>.yaml`` beside this file (or what is left of it) into ``results/papers/<name>`` and
writes the tables of ``<name>.published.yaml``, as Markdown and CSV, to ``benchmarks/results/papers/``; with
``--quick`` to the results folder only. ``<name>.published.yaml`` may name another ``suite`` and change its
``settings``; its ``figures`` become tables here, and pictures with ``figures.py``. Further arguments change
settings, as for ``fedguard evaluate``. A suite may be run in parts (``only``), each into a folder of its own,
say with different numbers of rounds: ``--render-only --out PART --also PART`` puts them on one page. As long
as runs of the suite are missing, a page that is already in ``benchmarks/results/papers/`` stays, and the new
one goes to the results folder; ``--replace-page`` replaces it all the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from measure import Entry, Measured, entries

from fedguard.core.errors import FedGuardError
from fedguard.evaluation.results.store import Store
from fedguard.evaluation.running.follow import run_followed
from fedguard.evaluation.running.live import Terminal, show_failures
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.evaluation.suites.source import Source
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.federation import Federation

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "papers"


def read_published(name: str) -> dict[str, Any]:
    """What a paper says, and how to get the same."""
    published: dict[str, Any] = yaml.safe_load((HERE / f"{name}.published.yaml").read_text(encoding="utf-8"))
    return published


def read_suite(name: str, published: dict[str, Any], changes: list[str]) -> tuple[Suite, Source]:
    """The suite of a name, with what the published file and the user change."""
    path = (HERE / name).with_name(f"{published.get('suite', Path(name).name)}.yaml")
    return load_suite(path, [*published.get("settings", []), *changes])


def markdown(published: dict[str, Any], found: list[Entry], about: list[str]) -> str:
    """The tables as a page: published / measured ± 95 % interval (difference)."""
    lines = [f"# {published['source']}", "", *about, ""]
    lines += ["Choices where the paper is silent, and differences of the setting:", ""]
    lines += [f"- {choice}" for choice in published.get("choices", [])]
    for title, note, parts in _sections(published):
        lines += ["", f"## {title}", "", *note, "published / measured ± 95 % interval (difference)"]
        for part in parts:
            cells = [entry for entry in found if entry.table == part]
            lines += ["", *([f"**{part}**", ""] if part != title else []), *_grid(cells)]
    if remarks := published.get("differences"):
        lines += ["", "## Where the numbers differ", "", *(f"{text.strip()}\n" for text in remarks)]
    return "\n".join(lines) + "\n"


def _sections(published: dict[str, Any]) -> Iterator[tuple[str, list[str], list[str]]]:
    """(title, note, names of the parts) of every table and figure."""
    for table in published.get("tables", []):
        yield table["title"], [table["note"], ""] if "note" in table else [], [table["title"]]
    for figure in published.get("figures", []):
        yield figure["title"], [f"By {figure['xlabel']}.", ""], list(figure["panels"])


def _grid(cells: list[Entry]) -> list[str]:
    if not cells:
        return ["not run"]
    columns = list(dict.fromkeys(entry.column for entry in cells))
    lines = ["| | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for row in dict.fromkeys(entry.row for entry in cells):
        lines.append(f"| {row} | " + " | ".join(e.text() for e in cells if e.row == row) + " |")
    return lines


def command_line(name: str, arguments: argparse.Namespace) -> str:
    """What somebody types to get the same."""
    words = ["python", "benchmarks/papers/reproduce.py", name, *arguments.settings]
    return shlex.join([*words, *(["--quick"] if arguments.quick else ["--data-root", "path/to/data"])])


def origin(name: str, arguments: argparse.Namespace) -> dict[str, str]:
    """The command, and the commit of the code."""
    commit = subprocess.run(  # noqa: S603
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    return {"command": command_line(name, arguments), "commit": commit or "unknown"}


def about_run(name: str, arguments: argparse.Namespace, store: Store) -> list[str]:
    """Command, code, machine and time, as noted when it was run; else those of this command."""
    noted = store.folder / "origin.yaml"
    where = yaml.safe_load(noted.read_text(encoding="utf-8")) if noted.exists() else origin(name, arguments)
    seconds = store.table("timings").query("part == 'total'")["seconds"].sum()
    seeds = sorted(store.table("runs")["seed"].unique().tolist())
    rounds = " or ".join(map(str, sorted(set(store.table("rounds").groupby("run").size()))))
    return [
        f"`{where['command']}`",
        "",
        f"Commit {where['commit']}, {len(store.finished())} runs of {rounds} rounds, seeds {seeds}, "
        f"{seconds / 3600:.2f} hours in all runs, on {platform.machine()} with one thread per process.",
    ]


def missing(suite: Suite, stores: list[Store]) -> int:
    """How many of a suite's pairs of attack and defense, by seed and grid point, no results folder holds."""
    tables = [store.table("runs").query("status == 'done'") for store in stores]
    names = ("attack", "defense", "seed", "point")
    done = {tuple(row) for table in tables for row in table[list(names)].itertuples(index=False)}
    wanted = {(c.attack_label, c.defense_label, c.seed, json.dumps(c.point)) for c in suite.cells()}
    return len(wanted - done)


def home_of(page: Path, folder: Path, left: int, arguments: argparse.Namespace) -> Path:
    """Where the page goes: among the committed ones, unless it would replace a page with part of its runs."""
    if arguments.quick:
        return folder
    if left and page.exists() and not arguments.replace_page:
        print(f"{left} runs of the suite are missing: {page} stays as it is (--replace-page replaces it)")
        return folder
    return page.parent


def estimate(suite: Suite) -> str:
    """Processor time of a suite in words: two rounds of every attack × defense, the second for the rest."""
    timed: dict[tuple[str, str], tuple[float, float]] = {}
    cells = suite.cells()
    for cell in cells:
        kind = (cell.attack_label, cell.defense_label)
        if kind not in timed:
            federation, seconds = Federation(cell), []
            for index in range(2):
                start = time.process_time()
                federation.step(index)
                seconds.append(time.process_time() - start)
            timed[kind] = (seconds[0], seconds[1])
    total = sum(
        first + (cell.rounds - 1) * later
        for cell in cells
        for first, later in [timed[cell.attack_label, cell.defense_label]]
    )
    return (
        f"{len(cells)} runs, {sum(c.rounds for c in cells)} rounds, about {total / 3600:.1f} processor hours"
    )


def main() -> None:
    """Run and render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="for example fang2020/mnist_lr")
    parser.add_argument("settings", nargs="*", help="settings to change, as for fedguard evaluate")
    parser.add_argument("--quick", action="store_true", help="embedded data, minutes at most")
    parser.add_argument("--estimate", action="store_true", help="time two rounds of each kind, run nothing")
    parser.add_argument("--render-only", action="store_true", help="tables of what has been run so far")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="results folder; results/papers/<name> by default")
    parser.add_argument("--also", type=Path, nargs="+", default=[], help="results folders to show with it")
    parser.add_argument("--replace-page", action="store_true", help="replace a page by part of its suite")
    arguments = parser.parse_intermixed_args()
    if arguments.data_root:
        os.environ["FEDGUARD_DATA"] = str(arguments.data_root.expanduser().absolute())
    published = read_published(arguments.name)
    folder = arguments.out or Path("results/papers") / (
        arguments.name + ("-quick" if arguments.quick else "")
    )
    failed = 0
    if not arguments.render_only:
        changes = [*(published["quick"] if arguments.quick else []), *arguments.settings]
        suite, source = read_suite(arguments.name, published, changes)
        check_suite(suite, source)
        if arguments.estimate:
            print(f"{arguments.name}: {estimate(suite)}")
            return
        try:
            terminal = Terminal(arguments.workers, ("tacc",))
            failed = show_failures(run_followed(suite, folder, arguments.workers, [terminal]))
        finally:  # an interrupted run can be rendered, too
            if folder.is_dir():
                where = yaml.safe_dump(origin(arguments.name, arguments))
                (folder / "origin.yaml").write_text(where, encoding="utf-8")
    stores = [Store(part) for part in (folder, *arguments.also)]
    found = list(entries(published, Measured(*stores)))
    about = [line for store in stores for line in (*about_run(arguments.name, arguments, store), "")]
    stem = Path(arguments.name).name
    left = 0 if arguments.quick else missing(read_suite(arguments.name, published, [])[0], stores)
    home = home_of(RESULTS / Path(arguments.name).parent / f"{stem}.md", folder, left, arguments)
    home.mkdir(parents=True, exist_ok=True)
    (home / f"{stem}.md").write_text(markdown(published, found, about[:-1]), encoding="utf-8")
    with (home / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Entry._fields)
        writer.writerows(found)
    print(f"wrote {home / stem}.md and .csv")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    try:
        main()
    except FedGuardError as error:  # a mistake of the user's, such as data that are not there
        sys.exit(f"reproduce.py: error: {error}")
