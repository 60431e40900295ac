"""Inner products of matrices that are products of thin factors, without forming them."""

from __future__ import annotations

import torch
from torch import Tensor

#: Clients per piece of the factors' own products.
PIECE = 64


def product_gram(left: Tensor, right: Tensor) -> Tensor:
    """(n, n) ⟨P_i Q_i, P_j Q_j⟩ = Σ (P_iᵀ P_j) ∘ (Q_i Q_jᵀ), float64, symmetric.

    Takes n² k² (p + q) multiplications instead of the n² p q that the formed products would take, and no
    memory for them.

    Args:
        left: (n, p, k) the P_i.
        right: (n, k, q) the Q_i.

    Example:
        >>> import torch
        >>> from fedguard.geometry.low_rank import product_gram
        >>> columns = torch.tensor([[[1.0], [2.0]], [[3.0], [0.0]]])
        >>> rows = torch.tensor([[[1.0, 1.0]], [[2.0, 0.0]]])
        >>> product_gram(columns, rows)  # of [[1, 1], [2, 2]] and [[6, 0], [0, 0]]
        tensor([[10.,  6.],
                [ 6., 36.]], dtype=torch.float64)
    """
    n, p, k = left.shape
    columns = left.double().permute(0, 2, 1).reshape(n * k, p)
    rows = right.double().reshape(n * k, -1)
    gram = torch.empty((n, n), dtype=torch.float64, device=left.device)
    for start in range(0, n, PIECE):
        here = slice(start * k, (start + PIECE) * k)
        both = (columns[here] @ columns.T) * (rows[here] @ rows.T)
        gram[start : start + PIECE] = both.view(-1, k, n, k).sum((1, 3))
    return (gram + gram.T) / 2


def vectors_of(gram: Tensor) -> Tensor:
    """(n, n) rows v_i with ⟨v_i, v_j⟩ = G_ij: V √Λ of G = V Λ Vᵀ, float64; rounding errors below 0 are cut.

    Norms, distances and cosines of the rows are those of whatever the Gram matrix is of. The axes mean
    nothing, and are others for another matrix.

    Example:
        >>> import torch
        >>> from fedguard.geometry.low_rank import vectors_of
        >>> rows = vectors_of(torch.tensor([[4.0, 2.0], [2.0, 9.0]]))
        >>> (rows @ rows.T).round(decimals=6).tolist()
        [[4.0, 2.0], [2.0, 9.0]]
    """
    values, vectors = torch.linalg.eigh(gram.double())
    rows: Tensor = vectors * values.clamp(min=0).sqrt()
    return rows
