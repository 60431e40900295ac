"""The (n, d) matrix of client updates, with geometry that all detectors of a round share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from .errors import RoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Index: TypeAlias = "NDArray[Any] | Sequence[int] | Tensor"

#: Bytes of float64 work space for one block of columns.
BLOCK_BYTES = 64 * 2**20
#: Below this share of the two squared norms, a squared distance is recomputed exactly.
NEAR_DUPLICATE = 1e-6


def as_matrix(updates: Any) -> Tensor:
    """Return ``updates`` as a detached float32 tensor of shape (n, d), without a copy where possible.

    Raises:
        RoundError: not two-dimensional, ragged, or not numeric.
    """
    if isinstance(updates, Sequence) and updates and isinstance(updates[0], Tensor):
        shapes = {tuple(u.shape) for u in updates}
        if len(shapes) > 1:
            raise RoundError(f"updates have different shapes {sorted(shapes)}; all must have d parameters")
        updates = torch.stack(list(updates))
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
    if updates.is_complex():
        raise RoundError("updates are complex; a real (n, d) array is needed")
    matrix: Tensor = updates.detach().to(torch.float32).contiguous()
    return matrix


class Updates:
    """Client updates u_i = w_i − w_{t−1} as rows, and what many detectors compute from them.

    Inner products are taken after centring on the mean client and summed in float64: with updates of
    scale 1e-5 and d = 10⁶, the textbook ‖x‖² + ‖y‖² − 2x·y in float32 ranks clients no better than
    chance. Everything is computed at most once, on first use. Treat all of it as read-only.

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
    def _products(self) -> tuple[Tensor, Tensor]:
        """The centred Gram matrix and the raw one, from a single pass over the columns."""
        gram = self.matrix.new_zeros((self.n, self.n), dtype=torch.float64)
        onto_mean = gram.new_zeros(self.n)
        mean_square = gram.new_zeros(())
        for block in self.blocks():
            mean = block.mean(0)
            centred = block - mean
            gram += centred @ centred.T
            onto_mean += centred @ mean
            mean_square += mean @ mean
        raw = gram + onto_mean[:, None] + onto_mean[None, :] + mean_square
        return gram, raw

    @property
    def gram(self) -> Tensor:
        """(n, n) ⟨u_i − ū, u_j − ū⟩, float64."""
        return self._products[0]

    @cached_property
    def products(self) -> Tensor:
        """(n, n) ⟨u_i, u_j⟩, float64."""
        return self._products[1]

    @cached_property
    def sq_distances(self) -> Tensor:
        """(n, n) ‖u_i − u_j‖², float64, zero diagonal; near-duplicate pairs are recomputed exactly."""
        gram = self.gram
        square = gram.diagonal()
        scale = square[:, None] + square[None, :]
        distances = (scale - 2 * gram).clamp_(min=0).fill_diagonal_(0)
        near = torch.triu(distances < NEAR_DUPLICATE * scale, diagonal=1)
        for i in near.any(1).nonzero().flatten().tolist():
            others = near[i].nonzero().flatten()
            exact = self._exact_sq_distances(i, others)
            distances[i, others] = exact
            distances[others, i] = exact
        return distances

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
        """The updates of some clients, in the order given; geometry that is already known is reused."""
        index = torch.as_tensor(np.asarray(clients), dtype=torch.long, device=self.matrix.device)
        if len(index) == self.n and bool((index == torch.arange(self.n, device=index.device)).all()):
            return self
        part = Updates(self.matrix[index])
        if "norms" in self.__dict__:
            part.__dict__["norms"] = self.norms[index]
        for name in ("products", "sq_distances", "cosines"):
            if name in self.__dict__:
                part.__dict__[name] = self.__dict__[name][index][:, index]
        return part
