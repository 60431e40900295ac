"""Updates of which some clients' rows are replaced."""

from __future__ import annotations

from torch import Tensor

from .matrix import Index, positions
from .updates import Updates


def overwritten(updates: Updates, clients: Index, rows: Tensor, copy: bool = False) -> Updates:
    """The updates with other rows for some clients; which of the rest are finite is not found out again.

    Args:
        updates: of all clients. Without ``copy`` their memory is used, and they are void afterwards.
        clients: the positions of k clients, or a mask.
        rows: (k, d) their new updates.
        copy: leave ``updates`` as they are.
    """
    index, matrix = positions(clients), updates.matrix.clone() if copy else updates.matrix
    matrix[index] = rows.to(matrix.dtype)
    changed = Updates(matrix)
    if "finite" in updates.__dict__:
        finite = updates.finite.copy()
        finite[index] = changed.take(index).finite
        changed.__dict__["finite"] = finite
    return changed
