"""Sums of order statistics: per coordinate, over the sorted values of all clients."""

from __future__ import annotations

from functools import partial

import numpy as np
from torch import Tensor

from .blocks import Block, joined, ordered, row_addresses, wide
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
    kernel = None if updates.device.type != "cpu" else kernel_for(updates.n, low, high, updates.d)

    def sums(start: int, stop: int) -> Block:
        found, block = None, None
        if kernel is not None and rows is not None:
            found = kernel(rows, start, stop)
        elif kernel is not None:
            block = np.ascontiguousarray(updates.block(start, stop))
            found = kernel(row_addresses(block), 0, stop - start)
        if found is not None:
            return found
        return wide(ordered(updates.block(start, stop) if block is None else block)[low:high]).sum(0)

    return joined(updates.map_spans(sums))
