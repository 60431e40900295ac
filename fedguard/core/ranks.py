"""Ranks, without SciPy's statistics: their import takes half as long as that of NumPy and SciPy's core."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def mean_rank(values: ArrayLike) -> NDArray[np.float64]:
    """(n,) the rank of each of n values, from 1; equal values share their mean rank. NaN is not allowed."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return ranks


def last_rank(values: ArrayLike) -> NDArray[np.intp]:
    """(n,) the rank of each of n values, from 1; equal values share the highest. NaN is not allowed."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.intp] = np.cumsum(counts)[place]
    return ranks
