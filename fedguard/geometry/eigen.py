"""The top eigenvector of a matrix, without the others; of a Gram matrix, also without the matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.threads import one_blas_thread
from .blocks import in_order, row_squares, wide
from .updates import Updates

#: Up to this many rows, computing all eigenvectors is as fast as computing one.
DENSE = 200
#: Up to this many clients, their Gram matrix is computed.
FEW = 2048
#: A Gram matrix of n clients takes about as long as n / READS products of all updates with a vector, twice.
READS = 75
#: Products with a vector between two restarts of ARPACK.
BASIS = 20


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


def top_eigenpairs(matrix: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(k,) the largest eigenvalues, in descending order, and (n, k) their eigenvectors; k = min(count, n).

    As for :func:`top_eigenvector`, the signs are arbitrary. More than ``FEW`` rows use Lanczos iterations,
    unless k is large or they do not converge.

    Args:
        matrix: (n, n) symmetric positive semidefinite.
        count: how many.
    """
    n = len(matrix)
    if n > FEW and count <= BASIS // 2 and bool(matrix.any()):
        from scipy.sparse.linalg import ArpackError, eigsh

        start = np.random.default_rng(0).standard_normal(n)
        try:
            with one_blas_thread():
                found = eigsh(matrix.cpu().numpy(), k=count, which="LA", v0=start)
        except ArpackError:
            pass
        else:
            ascending = torch.from_numpy(found[0]), torch.from_numpy(found[1])
            return ascending[0].flip(0).to(matrix), ascending[1].flip(1).to(matrix)
    values, vectors = torch.linalg.eigh(matrix)
    return values.flip(0)[:count], vectors.flip(1)[:, :count]


def top_of_centered_gram(updates: Updates) -> Tensor:
    """(n,) unit a with C Cᵀ a = λ a, λ the largest eigenvalue and C the (n, d) updates minus their mean.

    More than ``FEW`` clients on the CPU do without C Cᵀ: an iteration multiplies C, in float64, by a vector.
    If that takes so many iterations that C Cᵀ would have been there in the same time, C Cᵀ is computed.
    """
    if updates.n <= FEW or updates.device.type != "cpu":
        return top_eigenvector(updates.centered_gram)
    from scipy.sparse.linalg import LinearOperator

    blocks = updates.map_blocks(lambda block, mean: wide(block) - mean, updates.mean)
    scale = max(float(row_squares(block).max()) for block in blocks)

    def product(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        total = np.zeros(updates.n)
        for part in in_order(lambda block: block @ (vector @ block), blocks):
            total += part
        return total / scale

    operator = LinearOperator((updates.n, updates.n), matvec=product, dtype=np.float64)
    found = _lanczos(operator, updates.n // READS) if scale > 0 else None
    if found is not None:
        return torch.from_numpy(found)
    blocks.clear()
    return top_eigenvector(updates.centered_gram)


def _lanczos(matrix: Any, at_most: int | None = None) -> NDArray[np.float64] | None:
    """(n,) the vector; None without convergence, when the largest eigenvalues are almost equal.

    Args:
        matrix: (n, n), or what multiplies like one.
        at_most: about how many products with a vector are worth it.
    """
    from scipy.sparse.linalg import ArpackError, eigsh  # lazy: small federations do not need it

    start = np.random.default_rng(0).standard_normal(matrix.shape[0])
    restarts = None if at_most is None else max(1, at_most // BASIS)
    try:
        with one_blas_thread():
            vectors = eigsh(matrix, k=1, which="LA", v0=start, maxiter=restarts)[1]
            found: NDArray[np.float64] = matrix @ vectors[:, 0]
    except ArpackError:
        return None
    return found / np.linalg.norm(found)
