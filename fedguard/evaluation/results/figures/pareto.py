"""Trade-offs: false positives against false negatives, accuracy against the cost of detection."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..report.results import Section, costs, looks_of
from ..store import Store
from .axes import Axis, Scale
from .picture import Dots, Picture, Plot, Stroke, line_of
from .style import SHAPES

if TYPE_CHECKING:
    import pandas as pd


#: Width and height between the axes in the report, in pixels.
SIZE = (330, 220)


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


def trade_off_of_rates(section: Section) -> Picture:
    """FPR against FNR; the line joins what no other defense beats in both."""
    points = rates(section)
    told = ", ".join(f"{p.name} FPR {p.x:.1f} %, FNR {p.y:.1f} %" for p in points)
    words = ("FPR (%): honest clients accused", "FNR (%): attackers missed")
    return _picture(points, True, "Honest clients accused, attackers missed", words, told)


def trade_off_of_costs(store: Store, section: Section) -> Picture:
    """Accuracy under attack against seconds; the line joins what no other defense beats in both."""
    points = accuracy_costs(store, section)
    told = ", ".join(f"{p.name} {p.x:.2g} s, accuracy {p.y:.1f} %" for p in points)
    words = ("seconds per run beside client training", "test accuracy under attack (%)")
    return _picture(points, False, "Accuracy and cost", words, told)


def _picture(points: Sequence[Point], down: bool, title: str, words: tuple[str, str], told: str) -> Picture:
    best = front(points, down)
    dots = [
        Dots(
            [(p.x, p.y)], line_of(p.look)[0], 1.2, p in best, max(p.look, 0) % len(SHAPES),
            f"{p.name}: {p.x:.3g}, {p.y:.3g}", p.name,
        )
        for p in points
    ]  # fmt: skip
    corner = "lower left" if down else "upper left"
    plots = []
    if points:
        x, y = _axes(points, down, words)
        plots = [Plot("", x, y, [_steps(best), *dots], f"{title}: {told}", SIZE)]
    return Picture(
        title, plots, "no defense has both of these under an attack",
        f"better: {corner}; filled and joined: beaten by none in both", row=2.1, widest=4.6,
    )  # fmt: skip


def _steps(best: Sequence[Point]) -> Stroke:
    corners = [(b.x, a.y) for a, b in itertools.pairwise(best)]
    points = [(p.x, p.y) for p in best]
    return Stroke(
        [at for pair in itertools.zip_longest(points, corners) for at in pair if at], "soft", thin=True
    )


def _axes(points: Sequence[Point], down: bool, words: tuple[str, str]) -> tuple[Axis, Axis]:
    xs, ys = [p.x for p in points], [p.y for p in points]
    if down:
        return Axis(words[0], -4, max(20.0, 1.15 * max(xs))), Axis(words[1], -4, max(20.0, 1.12 * max(ys)))
    room = max(2.0, 0.15 * (max(ys) - min(ys)))
    y = Axis(words[1], max(-2.0, min(ys) - room), min(102.0, max(ys) + room))
    if min(xs) > 0 and max(xs) > 20 * min(xs):
        return Axis(words[0], min(xs) / 1.6, max(xs) * 2.5, Scale("log")), y
    return Axis(words[0], -0.05 * max(xs), 1.25 * max(xs) or 1.0), y
