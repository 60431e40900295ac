"""The top eigenvector of a matrix, without computing the others."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.threads import one_blas_thread

#: Up to this many rows, computing all eigenvectors is as fast as computing one.
DENSE = 200


def top_eigenvector(matrix: Tensor) -> Tensor:
    """(n,) unit v with M v = λ v, λ the largest eigenvalue of a symmetric positive semidefinite (n, n) M.

    Large matrices use Lanczos iterations from a fixed start (ARPACK, to float64 precision), which is 8 to 30
    times faster than all eigenvectors for 1000 clients. A final product with M makes entries of v that belong
    to equal rows of M equal up to rounding. The sign of v is arbitrary, and so is v if the largest eigenvalue
    is not unique.
    """
    scale = matrix.diagonal().max()
    found = _lanczos((matrix / scale).cpu().numpy()) if len(matrix) > DENSE and scale > 0 else None
    if found is None:
        vector: Tensor = torch.linalg.eigh(matrix).eigenvectors[:, -1]
        return vector
    return torch.from_numpy(found).to(matrix)


def _lanczos(matrix: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """(n,) the vector; None without convergence, when the largest eigenvalues are almost equal."""
    from scipy.sparse.linalg import ArpackError, eigsh  # lazy: small federations do not need it

    start = np.random.default_rng(0).standard_normal(len(matrix))
    try:
        with one_blas_thread():
            found: NDArray[np.float64] = matrix @ eigsh(matrix, k=1, which="LA", v0=start)[1][:, 0]
    except ArpackError:
        return None
    return found / np.linalg.norm(found)
