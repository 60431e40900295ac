"""Gram matrices of updates, summed in a fixed order over tiles of rows and column blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor

from .blocks import Block, joined, ranges, wide

#: Maps a float64 block of all clients to the (w,) columns of a point.
Origin: TypeAlias = Callable[[Block], Block]


class _Blocked(Protocol):
    """The part of ``Updates`` that a Gram matrix needs; ``updates.py`` describes it."""

    @property
    def n(self) -> int: ...

    @property
    def d(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    def block(self, start: int, stop: int, rows: slice = ...) -> Block: ...

    def map_blocks(self, work: Callable[..., Any], *vectors: Tensor) -> list[Any]: ...

    def sums(
        self, work: Callable[..., Block], spans: Sequence[tuple[int, int]], *vectors: Tensor
    ) -> Iterator[Block]: ...


#: Rows of a tile of the Gram matrix.
TILE = 1024


def tiled(n: int) -> bool:
    """Whether there are so many clients that distances and cosines take the memory of their Gram matrix."""
    return n > TILE


def gram_matrix(updates: _Blocked, origin: Origin | None, gpu: bool) -> Tensor:
    """(n, n) ⟨u_i − o, u_j − o⟩, float64.

    Args:
        updates: of n clients.
        origin: the point o; None for zero.
        gpu: whether blocks are tensors.
    """
    n = updates.n
    tiles = [slice(start, min(start + TILE, n)) for start in range(0, n, TILE)]
    point: tuple[Tensor, ...] = ()
    if origin is not None and len(tiles) > 1:  # a tile does not hold all clients
        point = (joined(updates.map_blocks(partial(_point, origin=origin))),)
    gram = torch.zeros((n, n), dtype=torch.float64, device=updates.device)
    table: Block = gram if gpu else gram.numpy()
    spans = ranges(min(n, TILE), updates.d, gpu)
    for i, here in enumerate(tiles):
        for there in tiles[: i + 1]:
            work = partial(_product, here=here, there=there, origin=origin)
            for part in updates.sums(work, spans, *point):
                table[here, there] += part
            if here is not there:
                table[there, here] = table[here, there].T
        table[here, here] = (table[here, here] + table[here, here].T) / 2  # symmetric only up to rounding
    return gram


def _point(block: Block, origin: Origin) -> Block:
    return origin(wide(block))


def _product(
    updates: _Blocked, start: int, stop: int, *point: Any, here: slice, there: slice, origin: Origin | None
) -> Block:
    """The contribution of some columns to a tile."""

    def moved(rows: slice) -> Block:
        block = wide(updates.block(start, stop, rows))
        if origin is not None:
            block -= point[0] if point else origin(block)
        return block

    left = moved(here)
    return left @ (left if here == there else moved(there)).T
