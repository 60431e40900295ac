"""Trade-offs: false positives against false negatives, accuracy against the cost of detection."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ....core.errors import ParameterError
from ..report.results import Section, costs, looks_of
from ..store import Store
from .grid import log_ticks, place_names
from .style import MARKERS, Sheet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Point:
    """A defense.

    Attributes:
        name: in print.
        look: number of its look; -1 for gray.
        x: lower is better.
        y: lower is better where ``down``, else higher.
    """

    name: str
    look: int
    x: float
    y: float


def rates(section: Section) -> list[Point]:
    """FPR and FNR in percent, means over the attacks under which both are defined."""
    frame = section.frame[section.frame["attacked"]].dropna(subset=["fpr", "fnr"])
    return _points(section, frame, "fpr", "fnr", 100.0, 100.0)


def accuracy_costs(store: Store, section: Section) -> list[Point]:
    """Seconds beside client training per run, and the mean accuracy in percent over attacks."""
    frame = section.frame[section.frame["attacked"]].dropna(subset=["tacc"])
    extra = {cost.defense: cost.total - cost.seconds["training"] for cost in costs(store, section)}
    frame = frame.assign(extra=frame["defense"].map(extra)).dropna(subset=["extra"])
    return _points(section, frame, "extra", "tacc", 1.0, 100.0)


def _points(section: Section, frame: pd.DataFrame, x: str, y: str, *scale: float) -> list[Point]:
    means = frame.groupby("defense", sort=False)[[x, y]].mean()
    known = looks_of(section)
    return [
        Point(str(name), known[str(name)], float(row[x]) * scale[0], float(row[y]) * scale[1])
        for name, row in means.iterrows()
    ]


def front(points: Sequence[Point], down: bool) -> list[Point]:
    """The points that no other beats in both, by x.

    Example:
        >>> some = [Point("a", 0, 1, 5), Point("b", 1, 2, 2), Point("c", 2, 3, 3)]
        >>> [point.name for point in front(some, down=True)], [point.name for point in front(some, False)]
        (['a', 'b'], ['a'])
    """
    best, found = math.inf, []
    for point in sorted(points, key=lambda p: (p.x, p.y if down else -p.y)):
        value = point.y if down else -point.y
        if value < best:
            best = value
            found.append(point)
    return found


def draw_rates(sheet: Sheet, section: Section) -> Any:
    """FPR against FNR; the line joins what no other defense beats in both.

    Raises:
        ParameterError: no defense has both.
    """
    points = rates(section)
    return _draw(
        sheet, points, True, ("FPR (%): honest clients accused", "FNR (%): attackers missed"), "lower left"
    )


def draw_costs(sheet: Sheet, store: Store, section: Section) -> Any:
    """Accuracy under attack against seconds; the line joins what no other defense beats in both.

    Raises:
        ParameterError: no defense has an accuracy.
    """
    points = accuracy_costs(store, section)
    words = "seconds per run beside client training", "test accuracy under attack (%)"
    return _draw(sheet, points, False, words, "upper left")


def _draw(sheet: Sheet, points: Sequence[Point], down: bool, words: tuple[str, str], corner: str) -> Any:
    if not points:
        raise ParameterError("no defense has both of these under an attack: see `fedguard export`")
    figure = sheet.figure(2.8, min(sheet.width, 4.6))
    axis = figure.subplots()
    _limits(axis, points, down)
    best = front(points, down)
    axis.step(
        [p.x for p in best], [p.y for p in best], where="post", color=sheet.colors.ink, alpha=0.45,
        linewidth=1.0, zorder=1,
    )  # fmt: skip
    for point in points:
        color = sheet.colors.other if point.look < 0 else sheet.colors.lines[point.look % 8]
        kept = point in best
        axis.plot(
            point.x, point.y, MARKERS[point.look % 8] if point.look >= 0 else "o", color=color,
            markersize=6, markerfacecolor=color if kept else sheet.colors.paper, zorder=3,
        )  # fmt: skip
    axis.grid(True, zorder=0)
    axis.set(xlabel=words[0], ylabel=words[1])
    axis.set_title(f"better: {corner}; filled and joined: beaten by none in both", fontsize=7)
    place_names(axis, [(p.x, p.y, p.name, _ink(sheet, p)) for p in points])
    return figure


def _ink(sheet: Sheet, point: Point) -> str:
    return sheet.colors.ink if point.look < 0 else sheet.colors.lines[point.look % 8]


def _limits(axis: Any, points: Sequence[Point], down: bool) -> None:
    xs, ys = [p.x for p in points], [p.y for p in points]
    if down:
        axis.set(xlim=(-4, max(20.0, 1.15 * max(xs))), ylim=(-4, max(20.0, 1.12 * max(ys))))
        return
    if min(xs) > 0 and max(xs) > 20 * min(xs):
        axis.set_xscale("log")
        log_ticks(axis.xaxis, 4)
        axis.set_xlim(min(xs) / 1.6, max(xs) * 2.5)
    else:
        axis.set_xlim(-0.05 * max(xs), 1.25 * max(xs) or 1.0)
    room = max(2.0, 0.15 * (max(ys) - min(ys)))
    axis.set_ylim(max(-2.0, min(ys) - room), min(102.0, max(ys) + room))
