"""Sums of order statistics: per coordinate, over the sorted values of all clients."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from .blocks import Block, joined, ordered, wide
from .kernels import kernel_for
from .updates import Updates


def middle_sums(updates: Updates, low: int, high: int) -> Tensor:
    """(d,) per coordinate, the sum of the values at sorted positions low … high − 1, in float64.

    Args:
        updates: of n clients.
        low: the first position, from 0.
        high: the position after the last one, at most n.
    """
    return updates.by_columns(partial(_middle_sums, low=low, high=high))


def _middle_sums(updates: Updates, low: int, high: int) -> Tensor:
    rows = updates.addresses()
    kernel = None if rows is None else kernel_for(updates.n, low, high, updates.d)

    def sums(start: int, stop: int) -> Block:
        found = None if kernel is None or rows is None else kernel(rows, start, stop)
        return wide(ordered(updates.block(start, stop))[low:high]).sum(0) if found is None else found

    return joined(updates.map_spans(sums))
