"""Accuracy or attack success by round, with bands over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..report.results import Line, Panel
from .axes import Axis
from .picture import Area, Mark, Picture, Plot, Stroke, line_of, named_lines, over

#: Width and height between the axes in the report, in pixels.
SIZE = (228, 146)


def curves(panels: Sequence[Panel], what: str, seeds: int) -> Picture:
    """A plot per attack, a line per defense; bands reach from the lowest to the highest seed.

    Args:
        panels: of :func:`fedguard.evaluation.results.report.results.curves`.
        what: is drawn, such as "test accuracy".
        seeds: over which lines are means.
    """
    panels = [panel for panel in panels if panel.lines]
    lines = [line for panel in panels for line in panel.lines]
    last = max((x for line in lines for x, _ in line.points), default=1.0)
    low = min((y for line in lines for y in _lowest(line)), default=0.0)
    x = Axis("round", 1.0, max(last, 2.0), whole=True)
    y = Axis(f"{what} (%)", min(90.0, 10.0 * math.floor(low / 10)), 100.0)
    note = over(seeds) + ("; bands: lowest to highest seed" if seeds > 1 else "")
    return Picture(
        f"{what[0].upper()}{what[1:]} by round",
        [Plot(panel.title, x, y, _marks(panel), _alt(panel, what), SIZE) for panel in panels],
        f"no {what} to draw", note, named_lines({line.name: line.rank for line in lines}), direct=True,
    )  # fmt: skip


def _lowest(line: Line) -> list[float]:
    return [y for _, y in line.points] + [low for _, low, _ in line.band]


def _marks(panel: Panel) -> list[Mark]:
    """Gray lines below colored ones, bands below all."""
    lines = sorted(panel.lines, key=lambda line: line.rank >= 0)
    bands = [_band(line) for line in lines if line.band and line.rank >= 0]
    return [*bands, *(Stroke(line.points, *line_of(line.rank), label=line.name) for line in lines)]


def _band(line: Line) -> Area:
    lows, highs = [(x, low) for x, low, _ in line.band], [(x, high) for x, _, high in line.band]
    return Area([*lows, *reversed(highs)], line_of(line.rank)[0])


def _alt(panel: Panel, what: str) -> str:
    ends = [(line.points[-1][1], line.name) for line in panel.lines]
    (worst, lowest), (best, highest) = min(ends), max(ends)
    return (
        f"{what[0].upper()}{what[1:]} by round under {panel.title}, a line for each of {len(ends)} defenses; "
        f"in the last round from {worst:.1f} % ({lowest}) to {best:.1f} % ({highest})"
    )
