"""ROC curves, a panel per attack."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..report.pictures import short
from ..report.results import Line, Panel
from .grid import grid, labels, legend, over, title
from .style import Sheet


def draw(sheet: Sheet, panels: Sequence[Panel], seeds: int) -> Any:
    """A curve per defense, with a dot where it decided; the dotted diagonal is guessing.

    Raises:
        ParameterError: no panel, or too many.
    """
    from matplotlib.lines import Line2D

    panels = [panel for panel in panels if panel.lines]
    figure, axes = grid(
        sheet, len(panels), "no roc to draw", _height(sheet, len(panels)), _wide(sheet, len(panels))
    )
    for axis, panel in zip(axes, panels, strict=True):
        axis.plot([0, 1], [0, 1], ":", color=sheet.colors.ink, alpha=0.5, linewidth=0.8, label="_")
        for line in panel.lines:
            _line(sheet, axis, line)
        title(axis, panel.title)
        axis.grid(True)
        axis.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), aspect="equal")
    labels(figure, "false positive rate", "true positive rate")
    named = {line.name: line for panel in panels for line in panel.lines if line.rank >= 0}
    handles = {short(name): Line2D([], [], **sheet.line(line.rank)) for name, line in named.items()}
    dot = Line2D([], [], marker="o", color="none", markeredgecolor=sheet.colors.ink, markersize=4)
    legend(
        figure, {**handles, "where it decided": dot}, f"mean over rounds; {over(seeds)}", 3 * sheet.columns
    )
    return figure


def _wide(sheet: Sheet, count: int) -> int:
    return min(count, 2 * sheet.columns)


def _height(sheet: Sheet, count: int) -> float:
    return min(2.4, 0.92 * sheet.width / _wide(sheet, max(1, count)) + 0.15)


def _line(sheet: Sheet, axis: Any, line: Line) -> None:
    look = sheet.line(line.rank)
    axis.plot(*zip(*line.points, strict=True), label=short(line.name) if line.rank >= 0 else "_", **look)
    if line.mark and line.rank >= 0:
        face = sheet.colors.paper
        dot = {"color": look["color"], "markerfacecolor": face, "markersize": 4.5, "zorder": 4}
        axis.plot(*line.mark, "o", label="_", **dot)
