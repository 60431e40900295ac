"""Column blocks of the (n, d) updates: bitwise identical results for any number of threads.

Block boundaries depend on n alone. One thread (and one BLAS thread) computes each block, and the results are
combined in order. A block is float32: a NumPy array on the CPU, a tensor elsewhere. Code that works on blocks
uses only operations that both support.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..core import threads
from .workers import map_in_threads

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: NumPy array on the CPU, tensor elsewhere.
Block: TypeAlias = Any
#: The first column of a block, and the one after its last.
Span: TypeAlias = "tuple[int, int]"
Item = TypeVar("Item")
Result = TypeVar("Result")

#: Bytes of a block in float64. It fits a core's cache, and the next block reuses its memory.
BLOCK_BYTES = 4 * 2**20
#: Bytes of a block in float64 on a GPU. It is larger because kernel launches dominate there.
GPU_BLOCK_BYTES = 256 * 2**20
#: Consecutive blocks whose contributions are summed before they are added to those of other groups.
GROUP = 64
#: Minimum number of columns per block, for any number of clients.
MIN_WIDTH = 256
#: Just below 32 MiB, the upper limit of glibc's dynamic mmap threshold.
MALLOC_BYTES = 31 * 2**20


@functools.cache
def keep_freed_blocks() -> None:
    """Make glibc's malloc reuse freed blocks in this process; does nothing outside Linux.

    By default, glibc returns large freed blocks to the kernel. The next block then page-faults all its memory
    in again, which takes longer than the arithmetic. Freeing one allocation of 31 MiB raises glibc's dynamic
    mmap threshold to that size, and the trim threshold to twice that. Nothing touches the memory, so it takes
    no physical pages. The effect lasts for the life of the process; the first loop over blocks triggers it.
    """
    if sys.platform == "linux":
        np.empty(MALLOC_BYTES, dtype=np.uint8)


def ranges(n: int, d: int, gpu: bool = False) -> list[Span]:
    """(start, stop) columns of every block of n rows."""
    width = max(MIN_WIDTH, (GPU_BLOCK_BYTES if gpu else BLOCK_BYTES) // (8 * max(n, 1)))
    return [(start, min(start + width, d)) for start in range(0, d, width)]


def in_order(work: Callable[[Item], Result], items: Sequence[Item], alone: bool = False) -> Iterator[Result]:
    """Yield ``work(item)`` for every item, in order, using as many threads as torch may use (or more: see
    :func:`fedguard.core.threads.blocks_on`).

    At most two finished results per thread are buffered. On the CPU, ``work`` must not call torch, which
    would start threads of its own.

    Args:
        work: the function; it runs with one BLAS thread.
        items: its arguments.
        alone: run everything in the calling thread, for work on a GPU.
    """

    def quietly(item: Item) -> Result:
        with np.errstate(all="ignore"):  # as in torch: a client that sends Inf triggers no warning
            return work(item)

    if not alone:
        keep_freed_blocks()
    count = 1 if alone else min(threads.block_threads(), len(items))
    with threads.one_blas_thread():
        if count <= 1:
            yield from map(quietly, items)
            return
        yield from map_in_threads(quietly, items, count)


def in_groups(parts: Iterable[Block]) -> Iterator[Block]:
    """The sum of every :data:`GROUP` consecutive parts, in order."""
    for group in batched(parts):
        total = next(group)
        for k, part in enumerate(group):
            total = np.add(total, part, out=total) if k and isinstance(total, np.ndarray) else total + part
        yield total


def batched(items: Iterable[Item]) -> Iterator[Iterator[Item]]:
    """Groups of :data:`GROUP` consecutive items, each to be consumed before the next."""
    source = iter(items)
    for item in source:
        yield itertools.chain([item], itertools.islice(source, GROUP - 1))


def on_block(updates: Any, start: int, stop: int, *cut: Any, work: Callable[..., Result]) -> Result:
    """``work`` on a float32 block of the updates."""
    return work(updates.block(start, stop), *cut)


def empty_matrix(rows: int, columns: int) -> Tensor:
    """(rows, columns) float32 in memory, not initialized.

    NumPy asks Linux for huge pages, PyTorch does not: bringing in small ones takes longer than filling them.
    """
    return torch.from_numpy(np.empty((rows, columns), dtype=np.float32))


def wide(block: Block) -> Block:
    """A copy in float64."""
    return block.astype(np.float64) if isinstance(block, np.ndarray) else block.double()


def row_addresses(array: NDArray[np.float32]) -> NDArray[np.uintp]:
    """(n,) where each row of an (n, w) array begins in memory."""
    return (array.ctypes.data + np.arange(len(array)) * array.strides[0]).astype(np.uintp)


def row_squares(block: Block) -> Block:
    """(n,) the squared norm of every row."""
    einsum = np.einsum if isinstance(block, np.ndarray) else torch.einsum
    return einsum("ij,ij->i", block, block)  # needs no temporary array of squares


def finite_rows(block: Block) -> NDArray[np.bool_]:
    """(n,) True where a row has no NaN or Inf."""
    if not isinstance(block, np.ndarray):
        return np.asarray(block.isfinite().all(1).cpu())
    if not np.isfinite(row_squares(block)).all():  # a square of a finite number may overflow float32, too
        return np.asarray(np.isfinite(block).all(1))
    return np.ones(len(block), dtype=bool)


def narrow(block: Block) -> Block:
    """A copy in float32."""
    return block.astype(np.float32) if isinstance(block, np.ndarray) else block.float()


def ordered(block: Block) -> Block:
    """(n, w) every column sorted in ascending order.

    On the CPU, columns are copied into rows: NumPy sorts short contiguous runs with SIMD instructions.
    """
    if not isinstance(block, np.ndarray):
        return block.sort(dim=0).values
    rows = np.array(block.T, order="C")
    rows.sort(axis=1)
    return rows.T


def joined(parts: Sequence[Block]) -> Tensor:
    """The blocks of a result, concatenated along the last axis."""
    if isinstance(parts[0], np.ndarray):
        return torch.from_numpy(np.concatenate(parts, axis=-1))
    return torch.cat(list(parts), dim=-1)
