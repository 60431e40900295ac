"""Put the scores of several detectors on one scale and combine them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedguard.core.ties import above, tolerance

#: A standard deviation in units of the median, and of the mean, absolute deviation of a normal sample.
PER_MAD, PER_MEAN_DEVIATION = 1.4826, 1.2533


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) (s − median) / (1.4826 · MAD) of the finite scores; infinite ones stay infinite.

    If MAD = 0 (more than half of the scores are equal), 1.2533 · the mean absolute deviation from the median
    replaces 1.4826 · MAD, as in the modified z-score of Iglewicz & Hoaglin (1993). If all are equal: 0.
    """
    z = values.copy()
    finite = np.isfinite(values)
    if not finite.any():
        return z
    part = values[finite]
    part = part / max(np.abs(part).max(), np.finfo(float).tiny)  # scores near 1e308 would overflow
    middle, slack = np.median(part), tolerance(len(part))
    part = part - middle
    part[~above(np.abs(part), 0.0, slack, abs(middle))] = 0.0  # equal scores differ in their last bits
    spread = PER_MAD * np.median(np.abs(part)) or PER_MEAN_DEVIATION * np.mean(np.abs(part))
    z[finite] = part / spread if spread > 0 else 0.0
    return z


def p_values(values: NDArray[np.float64], past: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) (1 + number of the k past scores that are at least s) / (1 + k): small values are suspicious.

    Without past scores, the other n − 1 scores of the round replace them.
    """
    known = np.sort(past if len(past) else values)
    lenient = values - tolerance(len(values)) * np.where(np.isfinite(values), np.abs(values), 0.0)
    at_least = len(known) - np.searchsorted(known, lenient, side="left")
    return (1 + at_least) / (1 + len(known)) if len(past) else at_least / len(known)


def fisher(p: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """(n,) −2 Σ ln p over k detectors: χ² with 2k degrees of freedom if they are independent."""
    total: NDArray[np.float64] = -2 * np.log(p).sum(axis=0)
    return total + 0.0  # no −0
