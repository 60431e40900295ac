"""Time and extra memory against the number of clients and of parameters.

    python benchmarks/scale_curves.py [--quick] [--limit VALUES]
    python benchmarks/scale_curves.py --draw      # the figure of benchmarks/results/scale.csv

Every point runs in a process of its own: one fresh round, one call. Writes benchmarks/results/scale.csv and
docs/images/scale.png; needs matplotlib (pip install -e ".[plot]"). The largest inputs are 4 GB;
``--limit`` leaves out those of more than so many values.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from bench import extra_memory, normal_updates, seconds

from fedguard import Round, make_aggregator, make_detector
from fedguard.evaluation.results.figures.axes import power_text
from fedguard.evaluation.results.figures.picture import line_of
from fedguard.evaluation.results.figures.style import Sheet

HERE = Path(__file__).resolve().parent
PICTURE = HERE.parent / "docs" / "images" / "scale.png"
#: What is drawn over sizes, and its name.
HEIGHTS = {"seconds": "seconds", "extra_mib": "extra memory (MiB)"}
#: Label → what is called, with its parameters for n clients.
METHODS: dict[str, tuple[Any, str, Any]] = {
    "mean": (make_aggregator, "mean", lambda n: {}),
    "median": (make_aggregator, "median", lambda n: {}),
    "trimmed mean": (make_aggregator, "trimmed_mean", lambda n: {"num_malicious": n // 5}),
    "geometric median": (make_aggregator, "geometric_median", lambda n: {}),
    "Krum": (make_detector, "krum", lambda n: {"num_malicious": n // 5}),
    "DnC": (make_detector, "dnc", lambda n: {"num_malicious": n // 5}),
    "norm bound": (make_detector, "norm_bound", lambda n: {}),
}
CLIENTS = [(n, 10**5) for n in (10, 100, 1000, 10_000)]
PARAMETERS = [(100, d) for d in (10**4, 10**5, 10**6, 10**7)]
LIMIT = [(1000, 10**6)]


def measure(label: str, n: int, d: int) -> dict[str, Any]:
    """The first call for memory, the second for time."""
    make, name, params = METHODS[label]
    method = make(name, **params(n))
    make(name, **params(10))(Round(normal_updates(10, 10)))  # imports what it needs
    X = normal_updates(n, d)
    _, memory = extra_memory(lambda: method(Round(X)))
    time = seconds(lambda: method(Round(X)))
    return {"method": label, "n": n, "d": d, "seconds": time, "extra_mib": memory}


def in_a_process(label: str, n: int, d: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--point", label, str(n), str(d)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ourselves
    return json.loads(result.stdout.splitlines()[-1])


def draw(points: list[dict[str, Any]], picture: Path) -> None:
    sheet = Sheet()
    with sheet.style():
        figure = sheet.figure(5.0)
        axes = figure.subplots(2, 2, sharey="row")
        for column, (axis, fixed, other) in enumerate([("n", "d", 10**5), ("d", "n", 100)]):
            for row, (value, name) in enumerate(
                [("seconds", "seconds"), ("extra_mib", "extra memory (MiB)")]
            ):
                panel = axes[row][column]
                for place, label in enumerate(METHODS):
                    line = [p for p in points if p["method"] == label and p[fixed] == other]
                    heights = [max(p[value], 0.1 if row else 0) for p in line]
                    color = sheet.colors[line_of(place)[0]]
                    panel.plot([p[axis] for p in line], heights, "o-", label=label, markersize=3, color=color)
                panel.set(xscale="log", yscale="log")
                panel.xaxis.set_major_formatter(lambda at, _: power_text(at))
                panel.yaxis.set_major_formatter(lambda at, _: power_text(at))
                panel.grid(visible=True)
                if column == 0:
                    panel.set_ylabel(name)
                panel.set_xlabel("clients n (d = 10⁵)" if axis == "n" else "parameters d (n = 100)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncol=len(labels))
        figure.savefig(picture, dpi=200)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--point"]:
        label, n, d = arguments[1:]
        print(json.dumps(measure(label, int(n), int(d))))
        return
    if "--draw" in arguments:
        with (HERE / "results" / "scale.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        draw([{k: v if k == "method" else float(v) for k, v in row.items()} for row in rows], PICTURE)
        return
    largest = 10**7 if "--quick" in arguments else 10**10
    if "--limit" in arguments:
        largest = int(float(arguments[arguments.index("--limit") + 1]))
    sizes = [s for s in dict.fromkeys(CLIENTS + PARAMETERS + LIMIT) if s[0] * s[1] <= largest]
    points = []
    for n, d in sorted(sizes):
        for label in METHODS:
            points.append(in_a_process(label, n, d))
            print(*points[-1].values(), flush=True)
    with (HERE / "results" / "scale.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, points[0])
        writer.writeheader()
        writer.writerows(points)
    draw(points, PICTURE)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main(sys.argv[1:])
