"""The (n, d) matrix of client updates, with cached geometry that all detectors of a round share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..core.deprecation import Renamed
from .blocks import (
    Block,
    Result,
    Span,
    finite_rows,
    in_groups,
    in_order,
    joined,
    on_block,
    ranges,
    row_addresses,
    row_squares,
    wide,
)
from .clusters import connected
from .gram import Origin, gram_matrix, tiled
from .matrix import Index, as_matrix, positions
from .tables import cosines, squared_distances

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Name → a table of all clients, and (n,) the positions of some of them.
Lent: TypeAlias = "dict[str, tuple[Tensor, NDArray[np.int64]]]"


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
        self._lent: Lent = {}

    @cached_property
    def matrix(self) -> Tensor:
        """(n, d) float32; on the result of ``take``, a copy made on first use."""
        return self._source if self._rows is None else self._source[self._rows]

    @property
    def n(self) -> int:
        """Number of clients."""
        return (self._source if self._rows is None else self._rows).shape[0]

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

    def between(self, span: slice) -> Updates:
        """Consecutive coordinates of all updates, in memory: a view of the matrix, where there is one."""
        return Updates(self.matrix[:, span])

    def map_blocks(self, work: Callable[..., Result], *vectors: Tensor) -> list[Result]:
        """``work(block, …)`` for consecutive float32 column blocks, in several threads; see ``blocks.py``.

        Args:
            work: called with a block and the matching columns of every vector.
            vectors: (…, d) tensors; on the CPU ``work`` gets their columns as NumPy arrays.
        """
        spans = ranges(self.n, self.d, self._gpu)
        return list(self.in_blocks(partial(on_block, work=work), spans, *vectors))

    def in_blocks(
        self, work: Callable[..., Result], spans: Sequence[Span], *vectors: Tensor
    ) -> Iterator[Result]:
        """``work(updates, start, stop, …)`` for some columns after others, in several threads, in order.

        Args:
            work: called with the updates, the columns and those of every vector.
            spans: (start, stop) of the columns.
            vectors: as in :meth:`map_blocks`.
        """
        there = [v.to(self.device) for v in vectors]
        cut = [v if self._gpu else v.numpy() for v in there]

        def one(span: Span) -> Result:
            return work(self, *span, *(v[..., slice(*span)] for v in cut))

        return in_order(one, spans, alone=self._gpu)

    def sums(self, work: Callable[..., Block], spans: Sequence[Span], *vectors: Tensor) -> Iterator[Block]:
        """Sums of ``in_blocks`` over groups of consecutive blocks.

        Whoever adds them in order has a sum whose order is fixed, though groups may be summed elsewhere.
        """
        yield from in_groups(self.in_blocks(work, spans, *vectors))

    def by_columns(self, work: Callable[[Updates], Tensor]) -> Tensor:
        """(…, d) ``work(updates)``, whose columns depend on the same columns of the updates only."""
        return work(self)

    def map_spans(self, work: Callable[[int, int], Result]) -> list[Result]:
        """``work(start, stop)`` for the columns of consecutive blocks, in several threads."""
        spans = ranges(self.n, self.d, self._gpu)
        return list(self.in_blocks(lambda _, start, stop: work(start, stop), spans))

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
        lent = self._lend("inner_products")
        return self._gram(None) if lent is None else lent

    def gram_about(self, client: int) -> Tensor:
        """(n, n) ⟨u_i − u_k, u_j − u_k⟩ for k = ``client``, float64."""
        return self._gram(lambda block: block[client] + 0.0)  # a copy, since the block changes in place

    def _gram(self, origin: Origin | None) -> Tensor:
        return gram_matrix(self, origin, self._gpu)

    @cached_property
    def sq_distances(self) -> Tensor:
        """(n, n) ‖u_i − u_j‖², float64, zero diagonal.

        The distances within a group of clients that are much closer to each other than to the mean are
        recomputed about the group's mean.
        """
        lent = self._lend("sq_distances")
        if lent is not None:
            return lent
        gram, distances = self._table("centered_gram", lambda block: block.mean(0))
        near = squared_distances(gram, distances)
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
        lent = self._lend("cosines")
        if lent is not None:
            return lent
        products, table = self._table("inner_products", None)
        cosines(products, self.norms, table)
        return table

    def _table(self, name: str, origin: Origin | None) -> tuple[Tensor, Tensor]:
        """A Gram matrix, and where to put a table that is computed from it row by row."""
        if tiled(self.n) and name not in self.__dict__:
            gram = self._gram(origin)
            return gram, gram
        kept: Tensor = getattr(self, name)
        return kept, torch.empty_like(kept)

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

    def scaled(self, factors: Tensor) -> Updates:
        """c_i u_i in float32, for (n,) float32 factors c."""
        return Updates(self.matrix * factors[:, None])

    def _hand_on(self, part: Updates, index: NDArray[np.int64]) -> None:
        """Copy the computed geometry of some clients to an object that holds only these."""
        if "norms" in self.__dict__:
            part.__dict__["norms"] = self.norms[index]
        if "finite" in self.__dict__:
            part.__dict__["finite"] = self.finite[index]
        for name in ("inner_products", "sq_distances", "cosines"):
            if name in self.__dict__:
                part._lent[name] = self.__dict__[name], index
            elif name in self._lent:
                table, mine = self._lent[name]
                part._lent[name] = table, mine[index]

    def _lend(self, name: str) -> Tensor | None:
        """A table's part for these clients, if it was computed for more of them: copied on first use."""
        if name not in self._lent:
            return None
        table, index = self._lent[name]
        return table[index[:, None], index]
