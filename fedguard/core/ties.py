"""Compare computed numbers up to rounding, so that ties are ties on every machine.

Sums that are equal in exact arithmetic differ in their last bits, and these bits depend on the CPU, because
linear algebra libraries add in different orders. Verdicts must not depend on them: numbers that differ by no
more than rounding compare as equal. Scores are not rounded; only comparisons have a tolerance.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]

#: The machine epsilon of float64; all sums are in float64.
EPSILON = float(np.finfo(np.float64).eps)
#: Upper bound on the number of rounded operations between a sum over updates and a score.
STEPS = 64
#: The number of parameters to assume if only scores are known.
ASSUMED = 10**6


def tolerance(n: int, d: int = ASSUMED, digits: int | None = None) -> float:
    """64 √(n d) ε: the relative rounding error of sums over n clients and d parameters.

    The error of a sum of k terms is about √k ε (Higham & Mary, SIAM J. Sci. Comput. 2019).

    Args:
        n: the number of clients.
        d: the number of parameters.
        digits: the number of decimals if the values are rounded. Adds one unit of the last decimal, since a
            value halfway between two may be rounded either way.
    """
    return STEPS * EPSILON * math.sqrt(n * d) + (0.0 if digits is None else 10.0**-digits)


def above(values: ArrayLike, limit: ArrayLike, slack: float, scale: ArrayLike = 0.0) -> NDArray[np.bool_]:
    """values > limit + slack · max(|limit|, scale): whether values exceed a limit by more than rounding.

    "At most" is ``~above(values, limit, …)``, "below" is ``above(limit, values, …)``.

    Args:
        values: numbers; ±Inf allowed.
        limit: the limit; ±Inf allowed, and equal to itself.
        slack: see :func:`tolerance`.
        scale: the magnitude of the terms that the values were computed from, for example 1 for cosines.
    """
    bound = np.asarray(limit, dtype=np.float64)
    size = np.maximum(np.abs(bound), scale)
    return np.asarray(np.asarray(values) > bound + slack * np.where(np.isfinite(size), size, 0.0))


def lowest(values: Floats, slack: float, scale: float = 0.0) -> int:
    """The first position whose value is not above the minimum."""
    return int(np.argmin(above(values, values.min(), slack, scale)))


def levels(values: Floats, slack: float, scale: float = 0.0) -> NDArray[np.intp]:
    """(…) the rank of each value among distinct ones, from 0; values equal up to rounding share a level.

    A level holds the values that are not :func:`above` its lowest value.

    Args:
        values: any shape; ±Inf allowed.
        slack: see :func:`tolerance`.
        scale: see :func:`above`.
    """
    flat = values.ravel()
    order = np.argsort(flat, kind="stable")
    result = np.empty(len(flat), dtype=np.intp)
    result[order] = np.cumsum(_begins(flat[order], slack, scale)) - 1
    return result.reshape(values.shape)


def snapped(values: Floats, slack: float, scale: float = 0.0) -> NDArray[np.float64]:
    """(…) each value replaced by the lowest of its level, for algorithms that compare exactly."""
    level = levels(values, slack, scale)
    least = np.full(level.max(initial=-1) + 1, np.inf)
    np.minimum.at(least, level.ravel(), values.ravel())
    result: NDArray[np.float64] = least[level]
    return result


def _begins(ordered: Floats, slack: float, scale: float) -> NDArray[np.bool_]:
    """(k,) True where a level begins in ascending values."""
    begins = np.ones(len(ordered), dtype=bool)
    begins[1:] = above(ordered[1:], ordered[:-1], slack, scale)
    starts = np.flatnonzero(begins)
    stops = np.append(starts[1:], len(ordered))
    if len(starts) == 0:
        return begins
    wide = above(ordered[stops - 1], ordered[starts], slack, scale)
    for start, stop in zip(starts[wide], stops[wide], strict=True):  # a chain of many small steps
        while start < stop:
            start += int(np.argmax(np.append(above(ordered[start:stop], ordered[start], slack, scale), True)))
            begins[start : start + 1] = True
    return begins
