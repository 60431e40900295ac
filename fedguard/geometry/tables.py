"""Tables of n × n numbers, computed from a Gram matrix a few rows at a time.

A table of 10,000 clients takes 800 MB, so that what is computed from it must not take several more. The
table that comes out may lie in the memory of the Gram matrix.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Rows of a table that are changed at a time.
ROWS = 256
#: A squared distance below this share of ‖u_i − ū‖² + ‖u_j − ū‖² suffers cancellation and is recomputed.
NEAR_DUPLICATE = 1e-4


def squared_distances(gram: Tensor, out: Tensor) -> Tensor:
    """Write ‖u_i − u_j‖² into ``out``; return (n, n) bool: which pairs suffer cancellation.

    Args:
        gram: (n, n) ⟨u_i − ū, u_j − ū⟩.
        out: (n, n); may be ``gram``.
    """
    square = gram.diagonal().clone()
    near = torch.empty_like(gram, dtype=torch.bool)
    for start in range(0, len(gram), ROWS):
        rows = slice(start, start + ROWS)
        scale = square[rows, None] + square[None, :]
        torch.sub(scale, gram[rows], alpha=2, out=out[rows]).clamp_(min=0)
        torch.lt(out[rows], scale.mul_(NEAR_DUPLICATE), out=near[rows])
    out.fill_diagonal_(0)
    return near.fill_diagonal_(False)


def cosines(products: Tensor, norms: Tensor, out: Tensor) -> None:
    """Write cos(u_i, u_j) in [−1, 1] into ``out``; 0 where an update is zero.

    Args:
        products: (n, n) ⟨u_i, u_j⟩.
        norms: (n,) ‖u_i‖.
        out: (n, n); may be ``products``.
    """
    for start in range(0, len(products), ROWS):
        rows = slice(start, start + ROWS)
        scale = norms[rows, None] * norms[None, :]
        out[rows] = torch.where(scale > 0, products[rows] / scale, 0.0).clamp_(-1, 1)
