"""The (n, d) matrix of client updates, with cached geometry that all detectors of a round share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..core.deprecation import Renamed
from ..core.errors import RoundError
from .blocks import Block, Result, finite_rows, in_order, joined, ranges, row_addresses, row_squares, wide
from .clusters import connected

if TYPE_CHECKING:
    from numpy.typing import NDArray

Index: TypeAlias = "NDArray[Any] | Sequence[int] | Tensor"

#: Rows of a tile of the Gram matrix.
TILE = 1024
#: A squared distance below this share of ‖u_i − ū‖² + ‖u_j − ū‖² suffers cancellation and is recomputed.
NEAR_DUPLICATE = 1e-4


def as_matrix(updates: Any) -> Tensor:
    """Return ``updates`` as a detached float32 tensor of shape (n, d), without a copy where possible.

    Raises:
        RoundError: not two-dimensional, ragged, or not numeric.
    """
    if isinstance(updates, Sequence) and updates and isinstance(updates[0], Tensor):
        shapes = {tuple(u.shape) for u in updates}
        if len(shapes) > 1:
            raise RoundError(f"updates have different shapes {sorted(shapes)}; all must have d parameters")
        try:
            updates = torch.stack(list(updates))
        except (RuntimeError, TypeError) as error:
            raise RoundError(
                f"updates do not fit together: {error}; send dense tensors on one device"
            ) from None
    if not isinstance(updates, Tensor):
        try:
            array = np.asarray(updates)
        except ValueError as error:
            raise RoundError(f"updates are ragged: {error}; every client sends d parameters") from None
        if array.dtype.kind not in "fiu":
            raise RoundError(f"updates have dtype {array.dtype}; a numeric (n, d) array is needed")
        with np.errstate(over="ignore"):  # overflow gives Inf, which the guard treats as unusable
            array = np.ascontiguousarray(array, dtype=np.float32)
        if not array.flags.writeable:
            array = array.copy()  # torch cannot wrap read-only memory
        updates = torch.from_numpy(array)
    if updates.ndim != 2:
        raise RoundError(f"updates have shape {tuple(updates.shape)}; (n clients, d parameters) is needed")
    if updates.layout is not torch.strided or updates.is_meta:
        raise RoundError("updates are sparse or without data; a dense (n, d) tensor is needed")
    if updates.is_complex() or updates.dtype == torch.bool:
        raise RoundError(f"updates have dtype {updates.dtype}; a numeric, real (n, d) array is needed")
    matrix: Tensor = updates.detach().to(torch.float32).contiguous()
    return matrix


def positions(clients: Index) -> NDArray[np.int64]:
    """(k,) positions in a round, from positions or a boolean mask."""
    index = np.asarray(clients.cpu() if isinstance(clients, Tensor) else clients)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)


class Updates:
    """Client updates u_i = w_i − w_{t−1} as rows, with cached geometry: norms, inner products, distances.

    Each property is computed once, on first use, in column blocks and in as many threads as torch may use.
    The results do not depend on the number of threads. Treat them as read-only.

    Distances come from inner products about the mean update, summed in float64. In float32, the textbook
    ‖x‖² + ‖y‖² − 2x·y ranks clients no better than chance for updates of scale 1e-5 and d = 10⁶. If one huge
    update moves the mean far from the others, their distances are recomputed about their own mean.

    Args:
        matrix: (n, d) array or tensor, or n vectors of length d; stored as float32.

    Raises:
        RoundError: the input is not a numeric (n, d) matrix.

    Example:
        >>> from fedguard import Updates
        >>> updates = Updates([[3.0, 4.0], [0.0, 0.0]])
        >>> updates
        Updates(n=2, d=2)
        >>> updates.norms
        tensor([5., 0.], dtype=torch.float64)
        >>> updates.sq_distances
        tensor([[ 0., 25.],
                [25.,  0.]], dtype=torch.float64)
    """

    def __init__(self, matrix: Any) -> None:
        self._source = as_matrix(matrix)
        self._rows: Tensor | None = None  # the rows of the source that belong to this object; None for all

    @cached_property
    def matrix(self) -> Tensor:
        """(n, d) float32; on the result of ``take``, a copy made on first use."""
        return self._source if self._rows is None else self._source[self._rows]

    @property
    def n(self) -> int:
        """Number of clients."""
        return len(self._source if self._rows is None else self._rows)

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self._source.shape[1]

    @property
    def device(self) -> torch.device:
        """The device of the updates."""
        return self._source.device

    @property
    def _gpu(self) -> bool:
        return self.device.type != "cpu"

    def __len__(self) -> int:
        return self.n

    def block(self, start: int, stop: int, rows: slice = slice(None)) -> Block:
        """(rows, stop − start) float32: a NumPy array on the CPU, a tensor elsewhere; read-only."""
        source = self._source if self._gpu else self._source.numpy()
        if self._rows is None:
            return source[rows, start:stop]
        return source[:, start:stop][self._rows[rows] if self._gpu else self._rows.numpy()[rows]]

    def blocks(self) -> Iterator[Tensor]:
        """Yield consecutive column blocks as float64 tensors that fit a core's cache."""
        for start, stop in ranges(self.n, self.d, self._gpu):
            part = self._source[:, start:stop]
            yield (part if self._rows is None else part[self._rows]).double()

    def row(self, i: int) -> Tensor:
        """(d,) a copy of client i's update."""
        return self._source[i if self._rows is None else int(self._rows[i])].clone()

    def columns(self, which: Tensor) -> Tensor:
        """(n, k) a copy of some columns."""
        part = self._source.index_select(1, which.to(self.device))
        return part if self._rows is None else part[self._rows]

    def map_blocks(self, work: Callable[..., Result], *vectors: Tensor) -> list[Result]:
        """``work(block, …)`` for consecutive float32 column blocks, in several threads; see ``blocks.py``.

        Args:
            work: called with a block and the matching columns of every vector.
            vectors: (…, d) tensors; on the CPU ``work`` gets their columns as NumPy arrays.
        """
        there = [v.to(self.device) for v in vectors]
        cut = [v if self._gpu else v.numpy() for v in there]
        return self.map_spans(
            lambda *span: work(self.block(*span), *(v[..., slice(*span)] for v in cut)),
        )

    def map_spans(self, work: Callable[[int, int], Result]) -> list[Result]:
        """``work(start, stop)`` for the columns of consecutive blocks, in several threads."""
        spans = ranges(self.n, self.d, self._gpu)
        return list(in_order(lambda span: work(*span), spans, alone=self._gpu))

    def addresses(self) -> NDArray[np.uintp] | None:
        """(n,) where each row begins in memory, its float32 numbers next to each other; None on a GPU."""
        if self._gpu:
            return None
        rows = row_addresses(self._source.numpy())
        return rows if self._rows is None else rows[self._rows.numpy()]

    def sum_blocks(self, work: Callable[..., Block], *vectors: Tensor) -> Tensor:
        """Σ over blocks of ``work(block in float64, …)``."""
        parts = self.map_blocks(lambda block, *cut: work(wide(block), *cut), *vectors)
        return torch.as_tensor(sum(parts[1:], start=parts[0]))

    def weighted_sum(
        self, coefficients: NDArray[np.float64], form: Callable[[Block], Block] = lambda block: block
    ) -> Tensor:
        """(…, d) Σ_i c_i u_i for coefficients (…, n), summed in float64; ``form`` converts each block."""
        c = torch.from_numpy(coefficients).to(self.device) if self._gpu else coefficients
        return joined(self.map_blocks(lambda block: form(c @ wide(block))))

    def along(self, direction: Tensor) -> Tensor:
        """(n,) ⟨u_i, v⟩ in float64, for v of (d,)."""
        return self.sum_blocks(lambda block, v: block @ v, direction.double())

    def distances_to(self, point: Tensor) -> Tensor:
        """(n,) ‖u_i − v‖ in float64, for v of (d,)."""
        return self.sum_blocks(lambda block, v: ((block - v) ** 2).sum(1), point.double()).sqrt()

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """(n,) True where a client's update has no NaN or Inf."""
        if "norms" in self.__dict__:  # squares of float32 fit into float64
            return self.norms.isfinite().cpu().numpy()
        ok: NDArray[np.bool_] = np.logical_and.reduce(self.map_blocks(finite_rows))
        return ok

    def __repr__(self) -> str:
        """The shape, never the numbers."""
        return f"{type(self).__name__}(n={self.n}, d={self.d})"

    @cached_property
    def norms(self) -> Tensor:
        """(n,) Euclidean norms ‖u_i‖, float64."""
        return self.sum_blocks(row_squares).sqrt()

    @cached_property
    def mean(self) -> Tensor:
        """(d,) unweighted mean update, float64."""
        return joined(self.map_blocks(lambda block: wide(block).mean(0)))

    @property
    def gram(self) -> Tensor:
        """Removed: it was the centered Gram matrix, contrary to its name.

        Raises:
            AttributeError: always; names both successors.
        """
        raise AttributeError(
            "Updates.gram is gone: use Updates.centered_gram for the same values (the Gram matrix of the "
            "updates minus their mean), or Updates.inner_products for the Gram matrix of the updates"
        )

    products = Renamed("inner_products")

    @cached_property
    def centered_gram(self) -> Tensor:
        """(n, n) ⟨u_i − ū, u_j − ū⟩, float64."""
        return self._gram(lambda block: block.mean(0))

    @cached_property
    def inner_products(self) -> Tensor:
        """(n, n) ⟨u_i, u_j⟩, float64; computed without the mean, which one huge update can move far away."""
        return self._gram(None)

    def gram_about(self, client: int) -> Tensor:
        """(n, n) ⟨u_i − u_k, u_j − u_k⟩ for k = ``client``, float64."""
        return self._gram(lambda block: block[client] + 0.0)  # a copy, since the block changes in place

    def _gram(self, origin: Callable[[Block], Block] | None) -> Tensor:
        """(n, n) inner products about a point, summed in a fixed order over tiles of rows and column blocks.

        Args:
            origin: maps a float64 block of all clients to the point's (w,) columns; None for zero.
        """
        gpu = self._gpu
        tiles = [slice(start, min(start + TILE, self.n)) for start in range(0, self.n, TILE)]
        point: Block = None
        if origin is not None and len(tiles) > 1:  # a tile does not hold all clients
            vector = joined(self.map_blocks(lambda block: origin(wide(block))))
            point = vector if gpu else vector.numpy()

        def moved(rows: slice, start: int, stop: int) -> Block:
            block = wide(self.block(start, stop, rows))
            if origin is not None:
                block -= origin(block) if point is None else point[start:stop]
            return block

        def part(task: tuple[slice, slice, tuple[int, int]]) -> Block:
            here, there, span = task
            left = moved(here, *span)
            return left @ (left if here is there else moved(there, *span)).T

        spans = ranges(min(self.n, TILE), self.d, gpu)
        pairs = [(here, there) for i, here in enumerate(tiles) for there in tiles[: i + 1]]
        tasks = [(*pair, span) for pair in pairs for span in spans]
        gram = torch.zeros((self.n, self.n), dtype=torch.float64, device=self.device)
        table: Block = gram if gpu else gram.numpy()
        for (here, there, _), piece in zip(tasks, in_order(part, tasks, alone=gpu), strict=True):
            table[here, there] += piece
        for here, there in pairs:
            if here is there:  # the product is symmetric only up to rounding
                table[here, here] = (table[here, here] + table[here, here].T) / 2
            else:
                table[there, here] = table[here, there].T
        return gram

    @cached_property
    def sq_distances(self) -> Tensor:
        """(n, n) ‖u_i − u_j‖², float64, zero diagonal.

        The distances within a group of clients that are much closer to each other than to the mean are
        recomputed about the group's mean.
        """
        square = self.centered_gram.diagonal()
        distances = torch.empty_like(self.centered_gram)
        near = torch.empty_like(self.centered_gram, dtype=torch.bool)
        for start in range(0, self.n, TILE):  # a few rows at a time: for n = 10⁴, a matrix takes 800 MB
            rows = slice(start, start + TILE)
            scale = square[rows, None] + square[None, :]
            torch.sub(scale, self.centered_gram[rows], alpha=2, out=distances[rows]).clamp_(min=0)
            torch.lt(distances[rows], scale.mul_(NEAR_DUPLICATE), out=near[rows])
        distances.fill_diagonal_(0)
        near.fill_diagonal_(False)
        for group in connected(near):
            if len(group) < self.n:
                distances[group[:, None], group] = self.take(group).sq_distances
            else:  # a chain of near pairs links all clients
                self._correct(distances, near)
        return distances

    def _correct(self, distances: Tensor, near: Tensor) -> None:
        for i in near.any(1).nonzero().flatten().tolist():
            others = near[i].nonzero().flatten()
            distances[i, others] = distances[others, i] = self._exact_sq_distances(i, others)

    def _exact_sq_distances(self, i: int, others: Tensor) -> Tensor:
        pair = self.take(torch.cat([others.new_tensor([i]), others]))
        return pair.sum_blocks(lambda block: ((block[1:] - block[0]) ** 2).sum(1))

    @cached_property
    def cosines(self) -> Tensor:
        """(n, n) cos(u_i, u_j) in [−1, 1], float64; 0 where an update is zero."""
        scale = self.norms[:, None] * self.norms[None, :]
        return torch.where(scale > 0, self.inner_products / scale, 0.0).clamp_(-1, 1)

    def take(self, clients: Index) -> Updates:
        """The updates of some clients (ordered positions, or a mask); raises IndexError for others.

        Returns a view; ``.matrix`` copies. Geometry that is already computed is kept.
        """
        where = np.arange(self.n)[positions(clients)]
        index = torch.as_tensor(where, device=self.device)
        if len(index) == self.n and bool((index == torch.arange(self.n, device=index.device)).all()):
            return self
        part = Updates(self._source)
        part._rows = index if self._rows is None else self._rows[index]
        self._hand_on(part, index.cpu().numpy())
        return part

    def _hand_on(self, part: Updates, index: NDArray[np.int64]) -> None:
        """Copy the computed geometry of some clients to an object that holds only these."""
        if "norms" in self.__dict__:
            part.__dict__["norms"] = self.norms[index]
        if "finite" in self.__dict__:
            part.__dict__["finite"] = self.finite[index]
        for name in ("inner_products", "sq_distances", "cosines"):
            if name in self.__dict__:
                part.__dict__[name] = self.__dict__[name][index][:, index]
