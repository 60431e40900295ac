"""A metric by attack and defense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..report.pictures import short
from ..report.results import HeatMap
from .style import Sheet


def draw(sheet: Sheet, chart: HeatMap) -> Any:
    """A heat map with its numbers; blue is better and orange worse, for every metric."""
    from matplotlib.colors import LinearSegmentedColormap

    rows, columns = len(chart.attacks), len(chart.defenses)
    figure = sheet.figure(1.25 + 0.22 * rows)
    axis = figure.subplots()
    steps = sheet.colors.steps if chart.column.best == "max" else sheet.colors.steps[::-1]
    top = chart.column.scale
    values = [[cell.value * top for cell in line] for line in chart.cells]
    shades = LinearSegmentedColormap.from_list("worse to better", steps)
    image = axis.imshow(values, cmap=shades, vmin=0, vmax=top, aspect="auto")
    # 5 signs of 0.6 times the size fit into a cell
    size = max(3.0, min(7.0, (sheet.width - 1.9) * 72 / columns / 3.2))
    for i, line in enumerate(chart.cells):
        for j, cell in enumerate(line):
            strong = cell.shade is not None and cell.shade in (0, 1, 9, 10)
            color = ("#10151a" if sheet.dark else "white") if strong else sheet.colors.ink
            axis.text(j, i, cell.text, ha="center", va="center", fontsize=size, color=color)
    _name(axis.set_xticks, chart.defenses, rotation=45, ha="right", rotation_mode="anchor")
    _name(axis.set_yticks, chart.attacks)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_xlabel("defense")
    axis.set_ylabel("attack")
    axis.set_title(f"{chart.name} ({chart.better})", fontsize=9)
    figure.colorbar(image, label=chart.column.title, pad=0.02).outline.set_visible(False)
    return figure


def _name(place: Any, names: Sequence[str], **style: Any) -> None:
    place(range(len(names)), [short(name) for name in names], fontsize=7, **style)
