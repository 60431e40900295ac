"""Seconds of client training, detectors, policy and aggregator, a bar per defense."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from ..report.results import PARTS, Cost
from .axes import Axis, down
from .picture import Boxes, Key, Mark, Picture, Plot, Text

#: The parts of a run in words and colors.
LOOKS = {
    "training": ("client training", "l5"),
    "detectors": ("detectors", "l1"),
    "policy": ("policy", "l3"),
    "aggregator": ("aggregator", "l2"),
}
#: Width and height of a bar in the report, and the room for words right of it, in pixels.
BAR, RIGHT = (320, 26), 175


def seconds(costs: Sequence[Cost]) -> Picture:
    """Stacked bars of seconds per run."""
    x = Axis("seconds per run", 0.0, max([cost.total for cost in costs] + [1e-3]))
    marks = [mark for i, cost in enumerate(costs) for mark in _bar(cost, i)]
    told = "; ".join(f"{cost.defense} {cost.total:.2f}{_share(cost)}" for cost in costs)
    size = (BAR[0], BAR[1] * len(costs))
    y = down("defense", [cost.defense for cost in costs])
    plot = Plot("", x, y, marks, f"Seconds per run: {told}", size, right=RIGHT)
    return Picture(
        "Cost: seconds per run", [plot] if costs else [], "no seconds to draw",
        "means over attacks and seeds; all clients together",
        [Key(text, Boxes((), color)) for text, color in LOOKS.values()],
        row=0.55 + 0.22 * len(costs), across=1,
    )  # fmt: skip


def _bar(cost: Cost, row: int) -> list[Mark]:
    ends = [0.0, *itertools.accumulate(cost.seconds[part] for part in PARTS)]
    bars: list[Mark] = [
        Boxes([(start, row - 0.37, end, row + 0.37)], LOOKS[part][1],
              f"{cost.defense}: {part} {cost.seconds[part]:.3f} s")
        for part, start, end in zip(PARTS, ends, ends[1:], strict=False)
        if end > start
    ]  # fmt: skip
    return [
        *bars,
        Text(
            cost.total,
            row,
            f"{cost.total:.2f} s{_share(cost) if cost.seconds['detectors'] else ''}",
            right=True,
        ),
    ]


def _share(cost: Cost) -> str:
    return "" if math.isnan(cost.share) else f", detectors {100 * cost.share:.1f} %"
