"""Updates whose columns lie in several processes, possibly on several machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ..core.errors import RoundError
from ..core.extras import extra_module
from .blocks import Block, Result, Span, batched, in_groups
from .blockwise import BlockwiseUpdates
from .matrix import Index, positions
from .streamed import StreamedUpdates
from .updates import Updates

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Shard(Protocol):
    """Some columns of all clients, wherever they are."""

    def submit(self, work: Callable[[Updates], Any]) -> Callable[[], Any]:
        """Start ``work(updates)`` for updates of these columns alone; calling what is returned gets it."""


class ShardedUpdates(BlockwiseUpdates):
    """The updates of a round, split by columns over several processes: for rounds larger than one memory.

    Norms, Gram matrices, distances, cosines, medians and weighted sums are computed where the columns are.
    They are bitwise identical to those of :class:`fedguard.Updates` and of :class:`StreamedUpdates`, however
    many shards there are: the sums over blocks have one fixed order. A block that lies in two shards is
    computed here. Tables of n² numbers and vectors of d numbers are in this process's memory. Access to
    ``matrix`` raises StreamedError, as it does for streamed updates.

    Make one by :meth:`on_ray`, or from shards of your own.

    Args:
        shards: in the order of the columns.
        edges: the first column of each shard, then d.
        n: the number of clients.

    Raises:
        RoundError: a shard has no columns.
    """

    where = "lie in shards"

    def __init__(self, shards: Sequence[Shard], edges: Sequence[int], n: int) -> None:
        if len(edges) != len(shards) + 1 or any(a >= b for a, b in pairwise(edges)):
            raise RoundError(f"{len(shards)} shards with edges {list(edges)}: each needs at least one column")
        self._shards, self._edges = list(shards), list(edges)
        self._index: NDArray[np.int64] = np.arange(n)
        self._lent = {}

    @classmethod
    def on_ray(
        cls,
        files: Mapping[Any, str | Path] | Sequence[str | Path],
        shards: int = 4,
        names: Sequence[str] | None = None,
        address: str | None = None,
    ) -> ShardedUpdates:
        """Let Ray actors read their columns from safetensors files, one file per client.

        Args:
            files: as for :class:`StreamedUpdates`; every actor's machine sees them under these paths.
            shards: how many actors; each holds d / shards columns of all clients in memory.
            names: the order of the tensors in a file.
            address: of a Ray cluster; None starts one here unless Ray is initialized already.

        Raises:
            ParameterError: Ray is not installed (``pip install "fedguard[ray]"``).
            RoundError: a file is not a safetensors file, or its tensors differ from those of the first file.
        """
        ray = extra_module("ray", "ray", "ShardedUpdates.on_ray")
        whole = StreamedUpdates(files, names)
        if not ray.is_initialized():
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        actor = ray.remote(_Columns)
        edges = [whole.d * k // shards for k in range(shards + 1)]
        return cls([_RayShard(ray, actor.remote(whole, *span)) for span in pairwise(edges)], edges, whole.n)

    @property
    def n(self) -> int:
        """Number of clients."""
        return len(self._index)

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self._edges[-1]

    def block(self, start: int, stop: int, rows: slice = slice(None)) -> Block:
        """(rows, stop − start) float32, fetched from the shards."""
        return self._ask(start, stop, rows)()

    def row(self, i: int) -> Tensor:
        """(d,) a copy of client i's update."""
        return torch.from_numpy(self.block(0, self.d, slice(i, i + 1))[0])

    def columns(self, which: Tensor) -> Tensor:
        """(n, k) a copy of some columns."""
        found = torch.empty((self.n, len(which)))
        for shard, first, last in self._each():
            here = (which >= first) & (which < last)
            if here.any():
                found[:, here] = shard.submit(partial(_pick, rows=self._index, which=which[here] - first))()
        return found

    def in_blocks(
        self, work: Callable[..., Result], spans: Sequence[Span], *vectors: Tensor
    ) -> Iterator[Result]:
        """``work(updates, start, stop, …)`` for some columns after others, each where they lie, in order."""
        for get in [self._parts(work, list(group), vectors, whole=False) for group in batched(spans)]:
            yield from get()

    def sums(self, work: Callable[..., Block], spans: Sequence[Span], *vectors: Tensor) -> Iterator[Block]:
        """Sums of ``in_blocks`` over groups of consecutive blocks, each where it lies."""
        for get in [self._parts(work, list(group), vectors, whole=True) for group in batched(spans)]:
            yield from get()

    def by_columns(self, work: Callable[[Updates], Tensor]) -> Tensor:
        """(…, d) ``work(updates)``, whose columns depend on the same columns of the updates only."""
        asked = [shard.submit(partial(_by_columns, rows=self._index, work=work)) for shard in self._shards]
        return torch.cat([get() for get in asked], dim=-1)

    def take(self, clients: Index) -> Updates:
        """The updates of some clients (ordered positions, or a mask); keeps geometry that is computed."""
        index = np.arange(self.n)[positions(clients)]
        if len(index) == self.n and (index == np.arange(self.n)).all():
            return self
        part = ShardedUpdates(self._shards, self._edges, self.n)
        part._index = self._index[index]
        self._hand_on(part, index)
        return part

    def _ask(self, start: int, stop: int, rows: slice = slice(None)) -> Callable[[], Block]:
        """Start to fetch some columns."""
        work = partial(_fetch, rows=self._index[rows])
        asked = [
            shard.submit(partial(work, start=max(start, first) - first, stop=min(stop, last) - first))
            for shard, first, last in self._each()
            if first < stop and start < last
        ]
        return lambda: np.concatenate([get() for get in asked], axis=1)

    def _each(self) -> Iterator[tuple[Shard, int, int]]:
        """(shard, first column, the one after its last)."""
        for shard, span in zip(self._shards, pairwise(self._edges), strict=True):
            yield shard, *span

    def _parts(
        self, work: Callable[..., Any], group: list[Span], vectors: Sequence[Tensor], whole: bool
    ) -> Callable[[], list[Any]]:
        """Start a group of blocks, where they lie; in ``whole``, their sum.

        A group in one shard is one call. Of a group in several, every shard does its blocks, this process
        does those between two shards, and the sum is taken here in the same order.
        """
        homes = [self._home(span) for span in group]
        if None not in homes and len(set(homes)) == 1:
            return self._submit(homes[0], work, group, vectors, whole)
        asked = [
            self._submit(home, work, [span], vectors, False) for home, span in zip(homes, group, strict=True)
        ]

        def collect() -> list[Any]:
            parts = [part for get in asked for part in get()]
            return list(in_groups(parts)) if whole else parts

        return collect

    def _home(self, span: Span) -> int | None:
        """The shard that has all of a block; None if it lies in several."""
        k = int(np.searchsorted(self._edges, span[0], side="right")) - 1
        return k if span[1] <= self._edges[k + 1] else None

    def _submit(
        self,
        home: int | None,
        work: Callable[..., Any],
        spans: list[Span],
        vectors: Sequence[Tensor],
        whole: bool,
    ) -> Callable[[], list[Any]]:
        first, last = spans[0][0], spans[-1][1]
        job = partial(_in_blocks, work=work, spans=spans, vectors=[v[..., first:last] for v in vectors])
        job = partial(job, first=first, whole=whole)
        if home is not None:
            return self._shards[home].submit(partial(job, rows=self._index, origin=self._edges[home]))
        fetched = self._ask(first, last)
        return lambda: job(Updates(fetched()), rows=np.arange(self.n), origin=first)


def _in_blocks(
    updates: Updates,
    rows: NDArray[np.int64],
    work: Callable[..., Any],
    spans: list[Span],
    vectors: Sequence[Tensor],
    first: int,
    origin: int,
    whole: bool,
) -> list[Any]:
    """The work on blocks that lie in one place; ``origin`` is its first column, ``first`` the vectors'."""

    def shifted(mine: Updates, start: int, stop: int) -> Any:
        cut = [v[..., start + origin - first : stop + origin - first].numpy() for v in vectors]
        return work(mine, start, stop, *cut)

    there = [(start - origin, stop - origin) for start, stop in spans]
    mine = updates.take(rows)
    return list((mine.sums if whole else mine.in_blocks)(shifted, there))


def _fetch(updates: Updates, rows: NDArray[np.int64], start: int, stop: int) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.array(updates.take(rows).block(start, stop))
    return found


def _pick(updates: Updates, rows: NDArray[np.int64], which: Tensor) -> Tensor:
    return updates.take(rows).columns(which)


def _by_columns(updates: Updates, rows: NDArray[np.int64], work: Callable[[Updates], Tensor]) -> Tensor:
    return work(updates.take(rows))


class _Columns:
    """What an actor is: the columns, and work on them."""

    def __init__(self, files: StreamedUpdates, start: int, stop: int) -> None:
        matrix = np.empty((files.n, stop - start), dtype=np.float32)
        for i, row in enumerate(matrix):  # one at a time: the memory of one matrix, not two
            row[:] = files.block(start, stop, slice(i, i + 1))[0]
        self._updates = Updates(matrix)

    def call(self, work: Callable[[Updates], Any]) -> Any:
        return work(self._updates)


class _RayShard:
    """A shard that a Ray actor holds."""

    def __init__(self, ray: Any, actor: Any) -> None:
        self._ray, self._actor = ray, actor

    def submit(self, work: Callable[[Updates], Any]) -> Callable[[], Any]:
        """Start the work; its result is fetched by calling what is returned."""
        return partial(self._ray.get, self._actor.call.remote(work))
