"""Draw the figures of a paper, as measured (extra: plot).

    python benchmarks/papers/figures.py fang2020/figure2_lr --out figure2.png
    python benchmarks/papers/figures.py fang2020/figure2_lr --csv FIGURE2_LR.csv --out figure2.png

The first reads the results folder; run ``reproduce.py`` with the same name first. The second reads the table
that it wrote, which holds ten rounds of a figure over rounds. Bars are 95 % intervals over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
from measure import Measured, Value
from reproduce import read_published

from fedguard.evaluation.results.figures.picture import line_of
from fedguard.evaluation.results.figures.style import DASHES, Sheet
from fedguard.evaluation.results.store import Store


class Tabled:
    """The curves of a table that ``reproduce.py`` wrote."""

    def __init__(self, path: Path) -> None:
        self._table = pd.read_csv(path)

    def curves(self, figure: dict[str, Any], title: str) -> dict[str, dict[Any, Value]]:
        """Label → x → value, of a panel."""
        rows = self._table[self._table["table"] == title]
        return {
            label: {
                x: Value(mean, interval, int(seeds))
                for x, mean, interval, seeds in part[["row", "measured", "interval", "seeds"]].values.tolist()
            }
            for label, part in rows.groupby("column", sort=False)
        }


def draw(figure: dict[str, Any], measured: Measured | Tabled) -> Any:
    """A figure in the style of ``fedguard plot``; panels with legends of their own are two side by side."""
    sheet, panels = Sheet(), figure["panels"]
    first = list(next(iter(panels.values())))
    alike = all(list(labels) == first for labels in panels.values())
    columns = len(panels) if alike else min(2, len(panels))
    rows = -(-len(panels) // columns)
    picture = sheet.figure(2.8 * rows, min(sheet.width, 1.2 + 2.6 * columns))
    axes = picture.subplots(rows, columns, sharey=True, squeeze=False)
    for axis, title in zip(axes.flat, panels, strict=False):
        curves = measured.curves(figure, title)
        for place, (label, curve) in enumerate(curves.items()):
            color, dash = line_of(8 * (place // 7) + place % 7)
            _line(axis, curve, label, sheet.colors[color], (0, DASHES[dash]) if dash else "-")
        axis.set_title(title)
        axis.set_xlabel(figure["xlabel"])
        axis.set_xscale(figure.get("scale", "linear"))
        axis.xaxis.set_major_formatter("{x:g}")
        axis.grid(visible=True)
        if not alike or axis is axes.flat[0]:
            axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for line in axes:
        line[0].set_ylabel(figure["metric"])
    return picture


def _line(axis: Any, curve: dict[Any, Any], label: str, color: str, style: Any) -> None:
    if curve:
        means, bars = [v.mean for v in curve.values()], [v.interval for v in curve.values()]
        marker = "o" if len(curve) <= 20 else ""
        axis.errorbar(
            list(curve), means, bars, label=label, color=color, linestyle=style, marker=marker, markersize=4
        )


def main() -> None:
    """Draw every figure of one name."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", help="for example fang2020/figure2_lr")
    parser.add_argument("--results", type=Path, help="results folder; results/papers/<name> by default")
    parser.add_argument("--csv", type=Path, help="draw from this table instead")
    parser.add_argument("--out", type=Path, required=True, help="picture to write, .png, .svg or .pdf")
    arguments = parser.parse_args()
    figures = read_published(arguments.name).get("figures", [])
    if not figures:
        parser.error(f"{arguments.name} has tables only")
    folder = arguments.results or Path("results/papers") / arguments.name
    measured = Tabled(arguments.csv) if arguments.csv else Measured(Store(folder))
    for k, figure in enumerate(figures):
        out = arguments.out if k == 0 else arguments.out.with_stem(f"{arguments.out.stem}-{k + 1}")
        with Sheet().style():
            draw(figure, measured).savefig(out, dpi=150)
        print(f"wrote {out}")


if __name__ == "__main__":
    main()
