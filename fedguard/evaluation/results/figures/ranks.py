"""The critical-difference diagram (Demšar, JMLR 7, 2006)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ..ranks import Ranking
from .axes import Axis
from .picture import Boxes, Mark, Picture, Plot, Stroke, Text, short

#: The height of the scale of ranks, of a name, and of a bar, in one unit.
TOP, ROW, BAR = 1.3, 0.5, 0.22


def critical_difference(found: Ranking, names: Sequence[str]) -> Picture:
    """An axis of average ranks, best on the left; a bar joins what Nemenyi's test cannot tell apart.

    Args:
        found: the ranks.
        names: of the defenses in print, best first.
    """
    k = len(names)
    half = math.ceil(k / 2)
    depth = 0.35 + BAR * len(found.groups())
    margin = 0.55 * (k - 1)
    low = depth + ROW * half + 0.1
    metric = found.column.title.removesuffix(" %")
    p = "" if math.isnan(found.p) else f"Friedman p = {found.p:.2g}; "
    note = f"{p}a bar joins what differs by less than CD"
    alt = f"Average ranks by {metric}, 1 is best: " + ", ".join(
        f"{name} {rank:.2f}" for name, rank in zip(names, found.ranks, strict=True)
    )
    plot = Plot(
        "", Axis("", 1 - margin, k + margin), Axis("", low, -TOP),
        [*_scale(found, k), *_branches(found, names, depth), *_bars(found, names)],
        f"{alt}; critical difference {found.difference:.2f}", (520.0, 44 * (low + TOP)), bare=True,
    )  # fmt: skip
    title = f"{metric}: average ranks over {found.blocks} {found.unit}s"
    return Picture(title, [plot], "nothing to rank", note, row=0.6 + 0.24 * half)


def _scale(found: Ranking, k: int) -> Iterator[Mark]:
    """The axis, and the critical difference as a length."""
    yield Stroke([(1, 0), (k, 0)], "ink")
    for tick in range(1, k + 1):
        yield Stroke([(tick, 0), (tick, -0.12)], "ink")
        yield Text(tick, -0.3, str(tick))
    end = 1 + min(found.difference, k - 1 + 0.5 * (k - 1))
    yield Stroke([(1, -0.67), (1, -0.83), (1, -0.75), (end, -0.75), (end, -0.67), (end, -0.83)], "ink")
    yield Text((1 + end) / 2, -1.05, f"CD = {found.difference:.2f}")


def _branches(found: Ranking, names: Sequence[str], depth: float) -> Iterator[Mark]:
    """A line from every rank to its name, the better half on the left."""
    k, half = len(names), math.ceil(len(names) / 2)
    for place, (name, rank) in enumerate(zip(names, found.ranks, strict=True)):
        left = place < half
        y = depth + ROW * ((place if left else k - 1 - place) + 0.5)
        edge = 1 - 0.05 * (k - 1) if left else k + 0.05 * (k - 1)
        yield Stroke([(rank, 0), (rank, y), (edge, y)], "ink", thin=True)
        text = f"{short(name)}  {rank:.2f}" if left else f"{rank:.2f}  {short(name)}"
        yield Text(edge, y, text, left=left, right=not left)


def _bars(found: Ranking, names: Sequence[str]) -> Iterator[Mark]:
    for level, (first, last) in enumerate(found.groups()):
        y = 0.2 + BAR * level
        ends = found.ranks[first] - 0.03, found.ranks[last] + 0.03
        joined = ", ".join(names[first : last + 1])
        yield Boxes([(ends[0], y - 0.05, ends[1], y + 0.05)], "ink", f"not told apart: {joined}")
