"""Column blocks of the (n, d) updates: several threads, the same bits for any number of them.

Where a block begins depends on n alone, each is worked on by one thread (one BLAS thread included), and what
comes out is put together in order. A block is float32: a NumPy array on the CPU, a tensor elsewhere; code
that is given one keeps to what both understand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..core import threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: NumPy array on the CPU, tensor elsewhere.
Block: TypeAlias = Any
Item = TypeVar("Item")
Result = TypeVar("Result")

#: Bytes of a block in float64: it stays in a core's cache, and its memory is used again by the next.
BLOCK_BYTES = 4 * 2**20
#: The same on a GPU, where starting work is what costs.
GPU_BLOCK_BYTES = 256 * 2**20
#: Columns per block at least, however many clients there are.
MIN_WIDTH = 256

# The C library hands freed blocks back to the kernel and faults every page in again, which takes longer than
# the arithmetic, until it has once seen an array of this size (glibc's largest dynamic threshold) freed.
np.empty(31 * 2**20, dtype=np.uint8)


def ranges(n: int, d: int, gpu: bool = False) -> list[tuple[int, int]]:
    """Where the blocks of n rows begin and end."""
    width = max(MIN_WIDTH, (GPU_BLOCK_BYTES if gpu else BLOCK_BYTES) // (8 * max(n, 1)))
    return [(start, min(start + width, d)) for start in range(0, d, width)]


def in_order(work: Callable[[Item], Result], items: Sequence[Item], alone: bool = False) -> Iterator[Result]:
    """``work(item)`` for every item, in order, in as many threads as torch may use.

    No more than two results per thread wait to be taken. ``work`` must not call torch on the CPU, which
    would start threads of its own.

    Args:
        work: runs under one BLAS thread.
        items: what to work on.
        alone: everything in the calling thread.
    """

    def quietly(item: Item) -> Result:
        with np.errstate(all="ignore"):  # as in torch: whoever sends Inf gets no warning printed
            return work(item)

    count = 1 if alone else min(torch.get_num_threads(), len(items))
    with threads.one_blas_thread():
        if count <= 1:
            yield from map(quietly, items)
            return
        with ThreadPoolExecutor(count) as pool:
            waiting: deque[Any] = deque()
            for item in items:
                if len(waiting) == 2 * count:
                    yield waiting.popleft().result()
                waiting.append(pool.submit(quietly, item))
            while waiting:
                yield waiting.popleft().result()


def wide(block: Block) -> Block:
    """A copy in float64."""
    return block.astype(np.float64) if isinstance(block, np.ndarray) else block.double()


def row_squares(block: Block) -> Block:
    """(n,) the squared norm of every row."""
    einsum = np.einsum if isinstance(block, np.ndarray) else torch.einsum
    return einsum("ij,ij->i", block, block)  # no square is written to memory


def finite_rows(block: Block) -> NDArray[np.bool_]:
    """(n,) where a row has no NaN or Inf."""
    if not isinstance(block, np.ndarray):
        return np.asarray(block.isfinite().all(1).cpu())
    if not np.isfinite(row_squares(block)).all():  # may also be a square too large for float32
        return np.asarray(np.isfinite(block).all(1))
    return np.ones(len(block), dtype=bool)


def narrow(block: Block) -> Block:
    """A copy in float32."""
    return block.astype(np.float32) if isinstance(block, np.ndarray) else block.float()


def ordered(block: Block) -> Block:
    """(n, w) every column in ascending order.

    On the CPU, columns are copied into rows: NumPy sorts short contiguous runs with vector instructions.
    """
    if not isinstance(block, np.ndarray):
        return block.sort(dim=0).values
    rows = np.array(block.T, order="C")
    rows.sort(axis=1)
    return rows.T


def joined(parts: Sequence[Block]) -> Tensor:
    """Blocks of results put together along the last axis."""
    if isinstance(parts[0], np.ndarray):
        return torch.from_numpy(np.concatenate(parts, axis=-1))
    return torch.cat(list(parts), dim=-1)
