"""Weighted sums of updates in place of the updates, computed when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from .blocks import Block, Result, Span, empty_matrix, in_order, narrow, ranges, wide
from .gram import Origin
from .updates import Updates

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Columns per product on the CPU: few enough for a core's cache.
STEP = 1024
#: A product of so many columns treats all of them alike; the BLAS rounds the rest of a block differently.
VECTOR = 16


class MixedUpdates(Updates):
    """v_k = Σ_i C_ki u_i, summed in float64 and rounded to float32, as rows.

    The first pass over blocks computes each block where it is used: a rule that passes once, such as the
    median, needs no (m, d) matrix in memory. A second pass, or anything but blocks, stores the matrix. Both
    give the same bits.

    Args:
        updates: the n updates u.
        coefficients: (m, n) C.

    Example:
        >>> import numpy as np
        >>> from fedguard import Updates
        >>> from fedguard.geometry.mixed import MixedUpdates
        >>> MixedUpdates(Updates([[2.0, 4.0], [4.0, 0.0]]), np.array([[0.5, 0.5]])).matrix
        tensor([[3., 2.]])
    """

    def __init__(self, updates: Updates, coefficients: NDArray[np.float64]) -> None:
        self._updates = updates
        self._coefficients = coefficients
        self._rows, self._lent = None, {}
        self._passed = False

    @cached_property
    def _source(self) -> Tensor:  # type: ignore[override]
        """(m, d) float32, the matrix."""
        stored = (
            torch.empty(self.n, self.d, device=self.device) if self._gpu else empty_matrix(self.n, self.d)
        )

        def store(span: tuple[int, int]) -> None:
            (stored if self._gpu else stored.numpy())[:, slice(*span)] = self._mixed(*span)

        for _ in in_order(store, ranges(self.n, self.d, self._gpu), alone=self._gpu):
            pass
        return stored

    @property
    def _stored(self) -> bool:
        return "_source" in self.__dict__

    @property
    def n(self) -> int:
        """Number of sums."""
        return len(self._coefficients)

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self._updates.d

    @property
    def device(self) -> torch.device:
        """The device of the updates."""
        return self._updates.device

    def block(self, start: int, stop: int, rows: slice = slice(None)) -> Block:
        """(rows, stop − start) float32: a NumPy array on the CPU, a tensor elsewhere; read-only."""
        return super().block(start, stop, rows) if self._stored else self._mixed(start, stop)[rows]

    def in_blocks(
        self, work: Callable[..., Result], spans: Sequence[Span], *vectors: Tensor
    ) -> Iterator[Result]:
        """``work(updates, start, stop, …)`` for some columns after others, in several threads, in order."""
        if self._passed:
            _ = self._source
        self._passed = True
        return super().in_blocks(work, spans, *vectors)

    def addresses(self) -> NDArray[np.uintp] | None:
        """(n,) where each row begins in memory, once the matrix is stored; None before, and on a GPU."""
        return super().addresses() if self._stored else None

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """(m,) True where a sum has no NaN or Inf; a mean of finite numbers is finite."""
        means = (self._coefficients >= 0).all() and (self._coefficients.sum(1) < 1 + 1e-9).all()
        return np.ones(self.n, dtype=bool) if means and self._updates.finite.all() else super().finite

    def _gram(self, origin: Origin | None) -> Tensor:
        _ = self._source  # distances are seldom the only thing that is asked for
        return super()._gram(origin)

    def _mixed(self, start: int, stop: int) -> Block:
        block = self._updates.block(start, stop)
        if self._gpu:
            return narrow(torch.from_numpy(self._coefficients).to(self.device) @ wide(block))
        out = np.empty((self.n, stop - start), dtype=np.float32)
        for first in range(0, stop - start, STEP):
            part = block[:, first : first + STEP]
            width = part.shape[1]
            padded = np.zeros((len(part), -(-width // VECTOR) * VECTOR))
            padded[:, :width] = part
            out[:, first : first + STEP] = (self._coefficients @ padded)[:, :width]
        return out
