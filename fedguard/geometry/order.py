"""Means of order statistics: per coordinate, over the sorted values of all clients."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from .blocks import Block, finite_rows, joined, narrow, ordered, row_addresses, wide
from .kernels import Kernel, kernel_for
from .updates import Updates

#: Where updates keep means that were computed together with the check of their values.
_KEPT = "_means_at_hand"


def middle_means(updates: Updates, low: int, high: int) -> Tensor:
    """(d,) per coordinate, the mean of the values at sorted positions low … high − 1, summed in float64.

    Args:
        updates: of n clients.
        low: the first position, from 0.
        high: the position after the last one, at most n.
    """
    cut, means = vars(updates).pop(_KEPT, (None, None))
    if cut == (low, high):
        found: Tensor = means
        return found
    return updates.by_columns(partial(_middle_means, low=low, high=high))


def check_with_means(updates: Updates, low: int, high: int) -> None:
    """Compute the means and ``updates.finite`` in one pass, if that saves one and all values are finite.

    The next call of :func:`middle_means` for these positions takes the means from the updates.
    """
    known = vars(updates)
    if type(updates) is not Updates or updates.device.type != "cpu" or "finite" in known or "norms" in known:
        return
    parts: list[Any] = updates.map_spans(_Work(updates, low, high, checks=True))
    if all(part is not None for part in parts):
        known["finite"] = np.ones(updates.n, dtype=bool)
        known[_KEPT] = (low, high), joined(parts)


def _middle_means(updates: Updates, low: int, high: int) -> Tensor:
    return joined(updates.map_spans(_Work(updates, low, high)))


class _Work:
    """The means of some columns; with ``checks`` None from the first value on that is NaN or Inf."""

    def __init__(self, updates: Updates, low: int, high: int, checks: bool = False) -> None:
        self.updates, self.low, self.high, self.checks = updates, low, high, checks
        self.rows = updates.addresses()
        cpu = updates.device.type == "cpu"
        self.kernel: Kernel | None = kernel_for(updates.n, low, high, updates.d) if cpu else None
        self.stopped = False

    def __call__(self, start: int, stop: int) -> Block | None:
        if self.stopped:
            return None
        block = found = None
        if self.kernel is not None and self.rows is not None:
            found = self.kernel(self.rows, start, stop)
        elif self.kernel is not None:
            block = np.ascontiguousarray(self.updates.block(start, stop))
            found = self.kernel(row_addresses(block), 0, stop - start)
        return found if found is not None else self._sorted(start, stop, block)

    def _sorted(self, start: int, stop: int, block: Block | None) -> Block | None:
        block = self.updates.block(start, stop) if block is None else block
        if self.checks and not finite_rows(block).all():
            self.stopped = True
            return None
        middle = wide(ordered(block)[self.low : self.high])
        return narrow(middle.sum(0) / (self.high - self.low))
