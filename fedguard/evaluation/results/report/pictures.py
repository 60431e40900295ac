"""The coordinates of the report's pictures, in pixels; the templates draw them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .axes import Axis, path, pixel
from .results import PARTS, Cost, HeatMap, Line, Panel
from .scores import Distribution
from .timeline import Timeline

#: The most characters of a name in a picture; its tooltip has the whole name.
NAME = 20


def short(name: str, limit: int = NAME) -> str:
    """A name, shortened to the limit."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def width_of(names: Sequence[str], size: float = 12) -> float:
    """The approximate width of the longest of some (shortened) names."""
    return max((len(short(name)) for name in names), default=0) * size * 0.58


@dataclass(frozen=True)
class HeatPlan:
    """The coordinates of a heat map."""

    map: HeatMap
    left: float
    top: float
    width: float
    height: float
    cell: tuple[float, float] = (42, 24)
    corner: str = "attack ↓ defense →"


def heat_plan(chart: HeatMap) -> HeatPlan:
    """Lay out a heat map: attack labels on the left, slanted defense labels above."""
    left, slanted = width_of([*chart.attacks, HeatPlan.corner]) + 14, width_of(chart.defenses) * 0.72
    top = slanted + 16
    step, line = HeatPlan.cell
    width = left + step * len(chart.defenses) + max(slanted - step / 2, 0) + 8
    return HeatPlan(chart, left, top, width, top + line * len(chart.attacks) + 6)


@dataclass(frozen=True)
class Drawn:
    """A line of a panel as an SVG path."""

    name: str
    rank: int
    path: str
    mark: tuple[float, float] | None
    band: str = ""


@dataclass(frozen=True)
class PanelPlan:
    """The coordinates and lines of a panel; gray lines come first, so that others cover them."""

    title: str
    x: Axis
    y: Axis
    lines: list[Drawn]
    alt: str


def line_plans(panels: Sequence[Panel], metric: str) -> list[PanelPlan]:
    """Lay out panels of percentages by round, with common axes."""
    points = [point for panel in panels for line in panel.lines for point in line.points]
    last = max((x for x, _ in points), default=1.0)
    lows = [y for _, y in points]
    lows += [low for panel in panels for line in panel.lines for _, low, _ in line.band]
    low = math.floor(min(lows, default=0.0) / 10) * 10.0
    x, y = Axis(1.0, max(last, 2.0), 40, 268), Axis(min(low, 90.0), 100.0, 158, 12)

    def alt(panel: Panel) -> str:
        ends = [(line.points[-1][1], line.name) for line in panel.lines]
        (worst, lowest), (best, highest) = min(ends), max(ends)
        return (
            f"{metric} by round under {panel.title}, a line for each of {len(ends)} defenses; in the last "
            f"round from {worst:.1f} % ({lowest}) to {best:.1f} % ({highest})"
        )

    return [_panel_plan(panel, x, y, alt(panel)) for panel in panels]


def roc_plans(panels: Sequence[Panel]) -> list[PanelPlan]:
    """Lay out ROC panels: TPR by FPR."""
    x, y = Axis(0.0, 1.0, 40, 224), Axis(0.0, 1.0, 196, 12)
    return [
        _panel_plan(
            panel,
            x,
            y,
            f"ROC curves under {panel.title}: true positive rate by false positive rate, "
            f"areas {', '.join(f'{line.name} {area(line.points):.3f}' for line in panel.lines[:12])}",
        )
        for panel in panels
    ]


def _panel_plan(panel: Panel, x: Axis, y: Axis, alt: str) -> PanelPlan:
    lines = [
        Drawn(
            line.name,
            line.rank,
            path(line.points, x, y),
            (x.at(line.mark[0]), y.at(line.mark[1])) if line.mark else None,
            _band(line, x, y) if line.rank >= 0 else "",
        )
        for line in panel.lines
    ]
    return PanelPlan(panel.title, x, y, sorted(lines, key=lambda line: line.rank >= 0), alt)


def _band(line: Line, x: Axis, y: Axis) -> str:
    """From the lowest to the highest seed, as a closed path."""
    lows, highs = [(a, low) for a, low, _ in line.band], [(a, high) for a, _, high in line.band]
    return f"{path([*lows, *reversed(highs)], x, y)}Z" if line.band else ""


def area(points: Sequence[tuple[float, float]]) -> float:
    """The area under a curve."""
    pairs = itertools.pairwise(points)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)


@dataclass(frozen=True)
class ScoresPlan:
    """The coordinates of a mirrored histogram: benign clients upwards, malicious ones downwards."""

    data: Distribution
    x: Axis
    y: Axis
    benign: str
    malicious: str
    cut: tuple[float, float, float] | None


def scores_plan(data: Distribution) -> ScoresPlan:
    """Lay out bars in percent of the scores of each kind of client."""
    x = Axis(data.edges[0], data.edges[-1], 46, 332, data.scale)
    top = max([*data.benign, *data.malicious, 1.0])
    y = Axis(-top, top, 190, 14)
    low, middle, high = (
        x.at(min(max(value, x.low), x.high)) if math.isfinite(value) else math.nan
        for value in (data.cut.low, data.cut.middle, data.cut.high)
    )
    cut = None if math.isnan(middle) else (low, middle, high)
    down = [-share for share in data.malicious]
    return ScoresPlan(data, x, y, _bars(data.edges, data.benign, x, y), _bars(data.edges, down, x, y), cut)


def _bars(edges: Sequence[float], shares: Sequence[float], x: Axis, y: Axis) -> str:
    parts = []
    for left, right, share in zip(edges, edges[1:], shares, strict=False):
        if share:
            a, b, top = x.at(left), x.at(right), y.at(share)
            parts.append(f"M{pixel(a)} {pixel(y.at(0))}V{pixel(top)}H{pixel(b)}V{pixel(y.at(0))}Z")
    return "".join(parts)


@dataclass(frozen=True)
class TimelinePlan:
    """The coordinates of a timeline, with one path per state."""

    data: Timeline
    left: float
    cell: float
    line: float
    width: float
    height: float
    paths: dict[str, str]
    dots: str
    ticks: list[tuple[float, int]]


def timeline_plan(data: Timeline) -> TimelinePlan:
    """Lay out a timeline: a row per client, a column per round."""
    left, top, line = width_of([row.name for row in data.rows]) + 54, 24.0, 17.0
    cell = min(26.0, max(8.0, 320 / data.rounds))
    paths: dict[str, list[str]] = {state: [] for state in ("passed", "flagged", "banned")}
    dots = []
    for i, row in enumerate(data.rows):
        y = top + i * line
        for j, state in enumerate(row.states):
            if state in paths:
                x = pixel(left + j * cell + 0.5)
                paths[state].append(
                    f"M{x} {pixel(y + 1)}h{pixel(cell - 1)}v{pixel(line - 2)}h-{pixel(cell - 1)}z"
                )
        dots += [f"M{pixel(left + (j + 0.5) * cell)} {pixel(y + line / 2)}h0" for j in row.attacks]
    step = next(s for s in (1, 2, 5, 10, 20, 50) if s * cell >= 24 or s == 50)
    numbers = [r for r in range(1, data.rounds + 1) if r == 1 or r % step == 0]
    return TimelinePlan(
        data, left, cell, line, left + cell * data.rounds + 10, top + line * len(data.rows) + 8,
        {state: "".join(parts) for state, parts in paths.items()}, "".join(dots),
        [(left + (r - 0.5) * cell, r) for r in numbers],
    )  # fmt: skip


@dataclass(frozen=True)
class CostPlan:
    """The coordinates of stacked bars of seconds."""

    rows: list[tuple[Cost, list[tuple[str, float, float]]]]
    x: Axis
    left: float
    height: float


def cost_plan(costs: Sequence[Cost]) -> CostPlan:
    """Lay out one bar per defense, with parts as (part, start, width)."""
    left = width_of([cost.defense for cost in costs]) + 14
    x = Axis(0.0, max([cost.total for cost in costs] + [1e-3]), left, left + 320)
    rows = []
    for cost in costs:
        start, parts = left, []
        for part in PARTS:
            wide = x.at(cost.seconds[part]) - left
            parts.append((part, start, wide))
            start += wide
        rows.append((cost, parts))
    return CostPlan(rows, x, left, 26.0 * len(costs) + 44)
