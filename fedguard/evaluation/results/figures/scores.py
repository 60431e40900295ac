"""Score distributions with thresholds, a plot per attack and defense."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..report.scores import Cut, Distribution
from .axes import Axis
from .picture import Area, Boxes, Key, Mark, Picture, Plot, Stroke, side_by_side
from .style import BENIGN, MALICIOUS

#: Width and height between the axes in the report, in pixels.
SIZE = (286, 176)
THRESHOLD = Stroke((), "ink", 1)


def scores(found: Sequence[tuple[str, str, Distribution]]) -> Picture:
    """Benign clients upwards, malicious ones downwards; a dashed line is the threshold.

    Args:
        found: attack, defense and distribution.
    """
    up, down = "benign ↑", "malicious ↓"
    if len(found) == 1:
        up, down = (f"{text} ({count})" for text, count in zip((up, down), found[0][2].counts, strict=True))
    keys = [Key(up, Boxes((), BENIGN)), Key(down, Boxes((), MALICIOUS))]
    if not all(math.isnan(data.cut.middle) for _, _, data in found):
        keys += [Key("threshold (median)", THRESHOLD), Key("its range", Area((), "soft"))]
    return Picture(
        "Scores", [_plot(attack, defense, data) for attack, defense, data in found],
        "no finite score to draw", "a higher score is more suspicious",
        keys,
        across=side_by_side([attack for attack, _, _ in found]),
    )  # fmt: skip


def _plot(attack: str, defense: str, data: Distribution) -> Plot:
    top, low = 1.05 * max([*data.benign, 1.0]), -1.05 * max([*data.malicious, 1.0])
    x = Axis(
        "score (log axis)" if data.scale.kind != "linear" else "score",
        data.edges[0],
        data.edges[-1],
        data.scale,
    )
    y = Axis("% of the scores of its kind", low, top, unsigned=True)
    marks: list[Mark] = [
        *_range(data.cut, x, y),
        Boxes(_bars(data.edges, data.benign, 1), BENIGN),
        Boxes(_bars(data.edges, data.malicious, -1), MALICIOUS),
        Stroke([(x.low, 0.0), (x.high, 0.0)], "soft", thin=True),
    ]
    if not math.isnan(data.cut.middle):
        middle = _inside(x, data.cut.middle)
        marks.append(Stroke([(middle, low), (middle, top)], THRESHOLD.color, THRESHOLD.dash))
    return Plot(f"{attack} × {defense}", x, y, marks, _alt(attack, defense, data), SIZE, _notes(data))


def _range(cut: Cut, x: Axis, y: Axis) -> list[Mark]:
    if math.isnan(cut.middle):
        return []
    low, high = _inside(x, cut.low), _inside(x, cut.high)
    return [Area([(low, y.low), (high, y.low), (high, y.high), (low, y.high)], "soft")]


def _inside(x: Axis, value: float) -> float:
    return min(max(value, x.low), x.high)


def _bars(
    edges: Sequence[float], shares: Sequence[float], sign: int
) -> list[tuple[float, float, float, float]]:
    places = zip(edges, edges[1:], shares, strict=False)
    return [(left, 0.0, right, sign * share) for left, right, share in places if share]


def _alt(attack: str, defense: str, data: Distribution) -> str:
    cut = "" if math.isnan(data.cut.middle) else f"; threshold {data.cut.middle:.4g}"
    return (
        f"Distribution of scores of {defense} under {attack}: {data.counts[0]} of benign clients upwards, "
        f"{data.counts[1]} of malicious clients downwards, "
        f"from {data.edges[0]:.4g} to {data.edges[-1]:.4g}{cut}"
    )


def _notes(data: Distribution) -> tuple[str, ...]:
    benign, malicious = data.infinite
    infinite = f"infinite, not drawn: {benign} benign, {malicious} malicious"
    return (data.cut.note, infinite) if benign + malicious else (data.cut.note,)
