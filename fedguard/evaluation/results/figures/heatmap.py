"""A metric by attack and defense."""

from __future__ import annotations

from ..report.results import HeatCell, HeatMap
from .axes import across, down
from .picture import Boxes, Picture, Plot

#: Width and height of a cell in the report, in pixels.
CELL = (42, 24)


def heatmap(chart: HeatMap) -> Picture:
    """A heat map with its numbers; blue is better and orange worse, for every metric."""
    rows, columns = len(chart.attacks), len(chart.defenses)
    marks = [
        _cell(cell, float(j), float(i)) for i, line in enumerate(chart.cells) for j, cell in enumerate(line)
    ]
    alt = (
        f"Heat map of {chart.name} ({chart.unit}, {chart.better}): {rows} attacks in rows, {columns} "
        "defenses in columns; the numbers are in the summary table"
    )
    x, y = across("defense", chart.defenses), down("attack", chart.attacks)
    plot = Plot("", x, y, marks, alt, (CELL[0] * columns, CELL[1] * rows))
    ends = ("0 %", "100 %") if chart.column.scale == 100 else ("0", "1")
    shades = ends if chart.column.best == "max" else ends[::-1]
    note = f"{chart.unit}; {chart.better}"
    return Picture(chart.name, [plot], "nothing to draw", note, shades=shades, row=0.55 + 0.22 * rows)


def _cell(cell: HeatCell, x: float, y: float) -> Boxes:
    box = (x - 0.48, y - 0.46, x + 0.48, y + 0.46)
    if cell.shade is None:
        return Boxes([box], "", cell.label, cell.text)
    return Boxes([box], f"c{cell.shade}", cell.label, cell.text, f"t{cell.shade}")
