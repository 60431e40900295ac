"""Draw the figures of a paper from a results folder, as measured (extra: plot).

    python benchmarks/papers/figures.py fang2020/figure2_lr --out figure2.png

Run ``reproduce.py`` with the same name first. Bars are 95 % intervals over seeds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from measure import Measured
from reproduce import read_published

from fedguard.evaluation.results.plot import COLORS, STYLES
from fedguard.evaluation.results.store import Store


def draw(figure: dict[str, Any], measured: Measured) -> Any:
    """A matplotlib figure with its panels side by side."""
    from matplotlib.figure import Figure

    panels = figure["panels"]
    first = list(next(iter(panels.values())))
    picture = Figure(figsize=(1 + 3.4 * len(panels), 4.0), layout="constrained")
    axes = picture.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axis, title in zip(axes, panels, strict=True):
        curves = measured.curves(figure, title)
        for (label, curve), color, style in zip(curves.items(), COLORS, STYLES, strict=False):
            _line(axis, curve, label, color, style)
        axis.set_title(title)
        axis.set_xlabel(figure["xlabel"])
        axis.set_xscale(figure.get("scale", "linear"))
        axis.grid(visible=True, alpha=0.3)
        if list(panels[title]) != first or axis is axes[0]:
            axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    axes[0].set_ylabel(figure["metric"])
    return picture


def _line(axis: Any, curve: dict[Any, Any], label: str, color: str, style: str) -> None:
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
    parser.add_argument("--out", type=Path, required=True, help="picture to write, .png, .svg or .pdf")
    arguments = parser.parse_args()
    figures = read_published(arguments.name).get("figures", [])
    if not figures:
        parser.error(f"{arguments.name} has tables only")
    measured = Measured(Store(arguments.results or Path("results/papers") / arguments.name))
    for k, figure in enumerate(figures):
        out = arguments.out if k == 0 else arguments.out.with_stem(f"{arguments.out.stem}-{k + 1}")
        draw(figure, measured).savefig(out, dpi=150)
        print(f"wrote {out}")


if __name__ == "__main__":
    main()
