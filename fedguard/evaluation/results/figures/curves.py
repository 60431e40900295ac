"""Accuracy or attack success by round, with bands over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..report.pictures import short
from ..report.results import Line, Panel
from .grid import MAX_DIRECT, end_labels, grid, labels, legend, over, title
from .style import Sheet


def draw(sheet: Sheet, panels: Sequence[Panel], what: str, seeds: int) -> Any:
    """A panel per attack, a line per defense; bands reach from the lowest to the highest seed.

    Args:
        sheet: what it is drawn on.
        panels: of :func:`fedguard.evaluation.results.report.results.curves`.
        what: the name of the vertical axis.
        seeds: over which lines are means.

    Raises:
        ParameterError: no panel, or too many.
    """
    panels = [panel for panel in panels if panel.lines]
    figure, axes = grid(sheet, len(panels), f"no {what} to draw")
    low = min((y for panel in panels for line in panel.lines for y in _lowest(line)), default=0.0)
    named = {line.name: line for panel in panels for line in panel.lines if line.rank >= 0}
    for axis, panel in zip(axes, panels, strict=True):
        for line in panel.lines:
            _line(sheet, axis, line)
        title(axis, panel.title)
        axis.grid(True)
        axis.set_ylim(min(90.0, 10.0 * (low // 10)), 100)
        axis.xaxis.get_major_locator().set_params(integer=True)
    labels(figure, "round", f"{what} (%)")
    heading = over(seeds) + ("; bands: lowest to highest seed" if seeds > 1 else "")
    if len(named) <= MAX_DIRECT and len(axes) == 1:
        figure.draw_without_rendering()
        _direct(sheet, axes[0], panels[0])
        axes[0].set_title(f"{short(panels[0].title, 32)} ({heading})", fontsize=8)
        return figure
    legend(figure, _handles(sheet, named), heading, 4 if sheet.columns == 1 else 8)
    return figure


def _lowest(line: Line) -> list[float]:
    return [y for _, y in line.points] + [low for _, low, _ in line.band]


def _line(sheet: Sheet, axis: Any, line: Line) -> None:
    look = sheet.line(line.rank)
    axis.plot(*zip(*line.points, strict=True), label=short(line.name) if line.rank >= 0 else "_", **look)
    if line.band and line.rank >= 0:
        x, low, high = zip(*line.band, strict=True)
        axis.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0, zorder=1)


def _direct(sheet: Sheet, axis: Any, panel: Panel) -> None:
    ends = [
        (line.points[-1][1], line.name, sheet.colors.lines[line.rank % 8])
        for line in panel.lines
        if line.rank >= 0
    ]
    end_labels(axis, ends)


def _handles(sheet: Sheet, named: dict[str, Line]) -> dict[str, Any]:
    from matplotlib.lines import Line2D

    return {short(name): Line2D([], [], **sheet.line(line.rank)) for name, line in named.items()}
