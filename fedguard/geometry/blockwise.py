"""Updates that never come into this process's memory as a whole, only in column blocks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from ..core.errors import StreamedError
from .blocks import Block, ranges
from .matrix import Index, positions
from .updates import Updates


class BlockwiseUpdates(Updates):
    """What updates on disk and in shards share. Subclasses have n, d, block, row, columns and take."""

    #: Where the updates are, for messages.
    where: str

    @property
    def device(self) -> torch.device:
        """The device of the blocks: the CPU."""
        return torch.device("cpu")

    @property
    def matrix(self) -> Tensor:
        """Not available, since the updates may not fit into memory.

        Raises:
            StreamedError: always.
        """
        raise StreamedError(
            f"the updates {self.where}, but a method needs all of them at once "
            f"({self.n} x {self.d}, {4e-9 * self.n * self.d:.2g} GB); use methods that work on blocks, "
            "distances, norms or cosines, or load the updates into memory"
        )

    def blocks(self) -> Iterator[Tensor]:
        """Yield consecutive column blocks as float64 tensors that fit a core's cache."""
        for span in ranges(self.n, self.d):
            yield torch.from_numpy(self.block(*span)).double()

    def addresses(self) -> None:
        """Nothing: the rows are not in memory."""

    def between(self, span: slice) -> Updates:
        """Consecutive coordinates of all updates, in memory."""
        start, stop, _ = span.indices(self.d)
        return Updates(self.block(start, stop))

    def scaled(self, factors: Tensor) -> Updates:
        """c_i u_i in float32, for (n,) float32 factors c, computed block by block when they are asked for."""
        return _ScaledUpdates(self, factors)


class _ScaledUpdates(BlockwiseUpdates):
    def __init__(self, updates: BlockwiseUpdates, factors: Tensor) -> None:
        self._updates = updates
        self._factors = factors
        self._lent = {}
        self.where = updates.where

    @property
    def n(self) -> int:
        """Number of clients."""
        return self._updates.n

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self._updates.d

    def block(self, start: int, stop: int, rows: slice = slice(None)) -> Block:
        """(rows, stop − start) float32."""
        factors = self._factors[rows, None].numpy()
        return self._updates.block(start, stop, rows) * factors

    def row(self, i: int) -> Tensor:
        """(d,) client i's update, in memory."""
        return self._updates.row(i) * self._factors[i]

    def columns(self, which: Tensor) -> Tensor:
        """(n, k) some columns."""
        return self._updates.columns(which) * self._factors[:, None]

    def take(self, clients: Index) -> Updates:
        """The updates of some clients (ordered positions, or a mask)."""
        index = positions(clients)
        return self._updates.take(index).scaled(self._factors[torch.from_numpy(index)])
