"""The eigenvector that matters, without the others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.threads import one_blas_thread

#: Up to so many rows all eigenvectors at once are as fast as the one.
DENSE = 200


def top_eigenvector(matrix: Tensor) -> Tensor:
    """(n,) unit v with M v = λ v, λ the largest eigenvalue of a symmetric positive semidefinite (n, n) M.

    Larger ones by Lanczos iterations from a fixed start (ARPACK, to float64's precision): 8 to 30 times
    faster than all eigenvectors of 1000 clients. One more product with M, so that equal rows of M have
    equal entries of v to rounding. The sign is arbitrary, and so is v within the space of equal largest
    eigenvalues.
    """
    scale = matrix.diagonal().max()
    found = _lanczos((matrix / scale).cpu().numpy()) if len(matrix) > DENSE and scale > 0 else None
    if found is None:
        vector: Tensor = torch.linalg.eigh(matrix).eigenvectors[:, -1]
        return vector
    return torch.from_numpy(found).to(matrix)


def _lanczos(matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(n,) None if it does not converge, since the largest eigenvalues are next to equal."""
    from scipy.sparse.linalg import ArpackError, eigsh  # here, since most federations are smaller

    start = np.random.default_rng(0).standard_normal(len(matrix))
    try:
        with one_blas_thread():
            found: NDArray[np.float64] = matrix @ eigsh(matrix, k=1, which="LA", v0=start)[1][:, 0]
    except ArpackError:
        return None
    return found / np.linalg.norm(found)
