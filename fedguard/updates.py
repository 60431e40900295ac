"""The (n, d) matrix of client updates, with geometry that all detectors of a round share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from .errors import RoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Index: TypeAlias = "NDArray[Any] | Sequence[int] | Tensor"

#: Bytes of float64 work space for one block of columns.
BLOCK_BYTES = 64 * 2**20
#: Below this share of the two squared norms about the mean, a squared distance is computed anew.
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
        with np.errstate(over="ignore"):  # beyond float32: becomes Inf, which the guard then refuses
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
    """Positions in a round; a boolean mask is read as one, not as the numbers 0 and 1."""
    index = np.asarray(clients.cpu() if isinstance(clients, Tensor) else clients)
    return np.flatnonzero(index) if index.dtype == bool else index.astype(np.int64)


class Updates:
    """Client updates u_i = w_i − w_{t−1} as rows, and what many detectors compute from them.

    Distances come from inner products about the mean client, summed in float64: with updates of scale
    1e-5 and d = 10⁶, the textbook ‖x‖² + ‖y‖² − 2x·y in float32 ranks clients no better than chance.
    One client with a huge update drags the mean far away from all others, whose distances are then
    taken about their own mean. Everything is computed at most once, on first use. Treat all of it as
    read-only.

    Args:
        matrix: (n, d) array or tensor, or n vectors of length d; kept as float32.

    Raises:
        RoundError: the input is not a numeric (n, d) matrix.
    """

    def __init__(self, matrix: Any) -> None:
        self.matrix = as_matrix(matrix)

    @property
    def n(self) -> int:
        """Number of clients."""
        return self.matrix.shape[0]

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self.matrix.shape[1]

    def __len__(self) -> int:
        return self.n

    def blocks(self) -> Iterator[Tensor]:
        """Yield consecutive column blocks in float64, small enough to stay in ``BLOCK_BYTES``."""
        width = max(1, BLOCK_BYTES // (8 * max(self.n, 1)))
        for start in range(0, self.d, width):
            yield self.matrix[:, start : start + width].double()

    @cached_property
    def finite(self) -> NDArray[np.bool_]:
        """(n,) True where a client's update has no NaN or Inf."""
        ok = torch.ones(self.n, dtype=torch.bool, device=self.matrix.device)
        for block in self.blocks():
            ok &= block.isfinite().all(1)
        return ok.cpu().numpy()

    @cached_property
    def norms(self) -> Tensor:
        """(n,) Euclidean norms ‖u_i‖, float64."""
        total = self.matrix.new_zeros(self.n, dtype=torch.float64)
        for block in self.blocks():
            total += block.square().sum(1)
        return total.sqrt()

    @cached_property
    def mean(self) -> Tensor:
        """(d,) unweighted mean update, float64."""
        return torch.cat([block.mean(0) for block in self.blocks()])

    @cached_property
    def gram(self) -> Tensor:
        """(n, n) ⟨u_i − ū, u_j − ū⟩, float64."""
        return self._gram(lambda block: block.mean(0))

    @cached_property
    def products(self) -> Tensor:
        """(n, n) ⟨u_i, u_j⟩, float64; not by way of the mean, which one huge update can drag away."""
        return self._gram(lambda block: 0.0)

    def gram_about(self, client: int) -> Tensor:
        """(n, n) ⟨u_i − u_k, u_j − u_k⟩ for k = ``client``, float64."""
        return self._gram(lambda block: block[client])

    def _gram(self, origin: Callable[[Tensor], Tensor | float]) -> Tensor:
        gram = self.matrix.new_zeros((self.n, self.n), dtype=torch.float64)
        for block in self.blocks():
            moved = block - origin(block)
            gram += moved @ moved.T
        return (gram + gram.T) / 2  # a matrix product is symmetric up to rounding only

    @cached_property
    def sq_distances(self) -> Tensor:
        """(n, n) ‖u_i − u_j‖², float64, zero diagonal.

        Clients that are far closer to each other than to the mean are a group of their own, about
        whose mean their distances are taken again.
        """
        gram = self.gram
        square = gram.diagonal()
        scale = square[:, None] + square[None, :]
        distances = (scale - 2 * gram).clamp_(min=0).fill_diagonal_(0)
        near = (distances < NEAR_DUPLICATE * scale).fill_diagonal_(False)
        for group in _connected(near):
            if len(group) < self.n:
                distances[group[:, None], group] = Updates(self.matrix[group]).sq_distances
            else:  # a chain that holds everybody
                self._correct(distances, near)
        return distances

    def _correct(self, distances: Tensor, near: Tensor) -> None:
        for i in near.any(1).nonzero().flatten().tolist():
            others = near[i].nonzero().flatten()
            distances[i, others] = distances[others, i] = self._exact_sq_distances(i, others)

    def _exact_sq_distances(self, i: int, others: Tensor) -> Tensor:
        total = self.matrix.new_zeros(len(others), dtype=torch.float64)
        for block in Updates(self.matrix[torch.cat([others.new_tensor([i]), others])]).blocks():
            total += (block[1:] - block[0]).square().sum(1)
        return total

    @cached_property
    def cosines(self) -> Tensor:
        """(n, n) cos(u_i, u_j) in [−1, 1], float64; 0 where an update is zero."""
        scale = self.norms[:, None] * self.norms[None, :]
        return torch.where(scale > 0, self.products / scale, 0.0).clamp_(-1, 1)

    def take(self, clients: Index) -> Updates:
        """The updates of some clients (positions in the order wanted, or a mask); known geometry is kept."""
        index = torch.as_tensor(positions(clients), device=self.matrix.device)
        if len(index) == self.n and bool((index == torch.arange(self.n, device=index.device)).all()):
            return self
        part = Updates(self.matrix[index])
        if "norms" in self.__dict__:
            part.__dict__["norms"] = self.norms[index]
        if "finite" in self.__dict__:
            part.__dict__["finite"] = self.finite[index.cpu().numpy()]
        for name in ("products", "sq_distances", "cosines"):
            if name in self.__dict__:
                part.__dict__[name] = self.__dict__[name][index][:, index]
        return part


def _connected(near: Tensor) -> list[Tensor]:
    """The groups (positions) of two clients or more that are linked by ``near``."""
    if not near.any():
        return []
    _, label = connected_components(near.cpu().numpy(), directed=False)
    groups = [np.flatnonzero(label == g) for g in np.flatnonzero(np.bincount(label) > 1)]
    return [torch.as_tensor(group, device=near.device) for group in groups]
