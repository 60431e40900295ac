"""The arguments of rounds: an (n, d) matrix in any form, and positions of clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ..core.errors import RoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Index: TypeAlias = "NDArray[Any] | Sequence[int] | Tensor"


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
