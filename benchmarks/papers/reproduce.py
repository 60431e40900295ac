"""Regenerate a paper's tables: published beside measured.

    python benchmarks/papers/reproduce.py fang2020/mnist_lr --data-root path/to/data --workers 4
    python benchmarks/papers/reproduce.py fang2020/mnist_lr --quick      # embedded data, to see it run

Runs the suite ``<name>.yaml`` beside this file (or what is left of it) into ``results/papers/<name>`` and
writes the tables of ``<name>.published.yaml``, as Markdown and CSV, to ``benchmarks/results/papers/``; with
``--quick`` to the results folder only. Further arguments change settings, as for ``fedguard evaluate``.
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fedguard.evaluation.check import check_suite
from fedguard.evaluation.follow import run_followed
from fedguard.evaluation.frame import metrics_frame
from fedguard.evaluation.live import Terminal, show_failures
from fedguard.evaluation.store import Store
from fedguard.evaluation.suite import load_suite

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results" / "papers"
#: Metrics of the papers: column of the frame, factor, offset, decimals.
METRICS = {
    "error": ("tacc", -1.0, 1.0, 2),
    "TACC": ("tacc", 100.0, 0.0, 2),
    "ASR": ("asr", 100.0, 0.0, 2),
    "DACC": ("dacc", 100.0, 0.0, 2),
    "FPR": ("fpr", 100.0, 0.0, 2),
    "FNR": ("fnr", 100.0, 0.0, 2),
    "ADACC": ("adacc", 100.0, 0.0, 2),
    "AFPR": ("afpr", 100.0, 0.0, 2),
    "AFNR": ("afnr", 100.0, 0.0, 2),
    "AAR": ("aar", 1.0, 0.0, 2),
    "AOI": ("aoi", 1.0, 0.0, 2),
    "lost": ("accuracy_lost", 100.0, 0.0, 1),
}


class Entry(NamedTuple):
    """One number of a published table, and ours."""

    table: str
    row: str
    column: str
    metric: str
    published: float
    measured: float
    interval: float
    seeds: int

    def text(self) -> str:
        """published | measured ± interval | difference; – where we have none."""
        digits = METRICS[self.metric][3]
        published = "–" if math.isnan(self.published) else f"{self.published:.{digits}f}"
        if math.isnan(self.measured):
            return f"{published} / –"
        interval = "" if math.isnan(self.interval) else f" ± {self.interval:.{digits}f}"
        difference = self.measured - self.published
        change = "" if math.isnan(difference) else f" ({difference:+.{digits}f})"
        return f"{published} / {self.measured:.{digits}f}{interval}{change}"


def entries(tables: list[dict[str, Any]], store: Store) -> Iterator[Entry]:
    """Every number of the published tables with what was measured."""
    frame = metrics_frame(store).set_index(["attack", "defense"])
    for table in tables:
        columns = table["columns"]
        for label, row in table["rows"].items():
            parts = (
                _broadcast(row.get(key, table.get(key)), len(columns))
                for key in ("attack", "defense", "metric")
            )
            for column, attack, defense, metric, published in zip(
                columns, *parts, row["published"], strict=True
            ):
                name, factor, offset, _ = METRICS[metric]
                measured, interval, seeds = math.nan, math.nan, 0
                if (attack, defense) in frame.index:
                    found = frame.loc[(attack, defense)]
                    measured = factor * float(found[name]) + offset
                    interval, seeds = abs(factor) * float(found[f"{name}_ci"]), int(found["seeds"])
                published = math.nan if published is None else float(published)
                yield Entry(table["title"], label, column, metric, published, measured, interval, seeds)


def _broadcast(value: Any, count: int) -> list[Any]:
    return value if isinstance(value, list) else [value] * count


def markdown(published: dict[str, Any], found: list[Entry], about: list[str]) -> str:
    """The tables as a page: published / measured ± 95 % interval (difference)."""
    lines = [f"# {published['source']}", "", *about, ""]
    lines += ["Choices where the paper is silent, and differences of the setting:", ""]
    lines += [f"- {choice}" for choice in published.get("choices", [])]
    for table in published["tables"]:
        lines += ["", f"## {table['title']}", "", "published / measured ± 95 % interval (difference)", ""]
        lines += [
            "| | " + " | ".join(map(str, table["columns"])) + " |",
            "|" + "---|" * (len(table["columns"]) + 1),
        ]
        for label in table["rows"]:
            cells = [e.text() for e in found if (e.table, e.row) == (table["title"], label)]
            lines.append(f"| {label} | " + " | ".join(cells) + " |")
    if remarks := published.get("differences"):
        lines += ["", "## Where the numbers differ", "", *(f"{text.strip()}\n" for text in remarks)]
    return "\n".join(lines) + "\n"


def command_line(name: str, arguments: argparse.Namespace) -> str:
    """What somebody types to get the same."""
    words = ["python benchmarks/papers/reproduce.py", name, *arguments.settings]
    return " ".join([*words, *(["--quick"] if arguments.quick else ["--data-root path/to/data"])])


def about_run(name: str, arguments: argparse.Namespace, store: Store) -> list[str]:
    """Command, code, machine and time."""
    commit = subprocess.run(  # noqa: S603
        ["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"],  # noqa: S607
        capture_output=True, text=True, check=False,
    ).stdout.strip()  # fmt: skip
    seconds = store.table("timings").query("part == 'total'")["seconds"].sum()
    seeds = sorted(store.table("runs")["seed"].unique().tolist())
    return [
        f"`{command_line(name, arguments)}`",
        "",
        f"Commit {commit or 'unknown'}, {len(store.finished())} runs, seeds {seeds}, "
        f"{seconds / 3600:.1f} process-hours on {platform.machine()} with one thread per process.",
    ]


def main() -> None:
    """Run and render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="for example fang2020/mnist_lr")
    parser.add_argument("settings", nargs="*", help="settings to change, as for fedguard evaluate")
    parser.add_argument("--quick", action="store_true", help="embedded data, minutes at most")
    parser.add_argument("--render-only", action="store_true", help="tables of what has been run so far")
    parser.add_argument("--data-root", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, help="results folder; results/papers/<name> by default")
    arguments = parser.parse_intermixed_args()
    if arguments.data_root:
        os.environ["FEDGUARD_DATA"] = str(arguments.data_root.expanduser().absolute())
    published = yaml.safe_load((HERE / f"{arguments.name}.published.yaml").read_text(encoding="utf-8"))
    folder = arguments.out or Path("results/papers") / (
        arguments.name + ("-quick" if arguments.quick else "")
    )
    failed = 0
    if not arguments.render_only:
        overrides = [*(published["quick"] if arguments.quick else []), *arguments.settings]
        suite, source = load_suite(HERE / f"{arguments.name}.yaml", overrides)
        check_suite(suite, source)
        failed = show_failures(
            run_followed(suite, folder, arguments.workers, [Terminal(arguments.workers, ("tacc",))])
        )
    store = Store(folder)
    found = list(entries(published["tables"], store))
    home = folder if arguments.quick else RESULTS / Path(arguments.name).parent
    home.mkdir(parents=True, exist_ok=True)
    stem = Path(arguments.name).name
    (home / f"{stem}.md").write_text(
        markdown(published, found, about_run(arguments.name, arguments, store)), encoding="utf-8"
    )
    with (home / f"{stem}.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(Entry._fields)
        writer.writerows(found)
    print(f"wrote {home / stem}.md and .csv")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
