"""Compare computed numbers so that a tie is a tie on every machine.

Two numbers that are equal by construction come out of a sum with different last bits, and with different
ones on another CPU, whose linear algebra adds in another order. A verdict must not depend on that: what
differs by no more than rounding counts as equal. Scores keep all their bits; only comparisons are lenient.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats: TypeAlias = NDArray[np.floating[Any]]

#: The machine epsilon of float64, in which everything is summed.
EPSILON = float(np.finfo(np.float64).eps)
#: How many roundings of a sum the way from updates to a score takes, at most.
STEPS = 64
#: The number of parameters where only scores are known.
ASSUMED = 10**6


def tolerance(n: int, d: int = ASSUMED, digits: int | None = None) -> float:
    """64 √(n d) ε: the relative rounding error of what is summed over n clients and d parameters.

    A sum of k terms is off by about √k ε (Higham & Mary, SIAM J. Sci. Comput. 2019).

    Args:
        n: clients.
        d: parameters.
        digits: of numbers rounded to so many decimals; one unit of the last is added, since a number half
            way between two goes either way.
    """
    return STEPS * EPSILON * math.sqrt(n * d) + (0.0 if digits is None else 10.0**-digits)


def above(values: ArrayLike, limit: ArrayLike, slack: float, scale: ArrayLike = 0.0) -> NDArray[np.bool_]:
    """Whether values > limit by more than slack · max(|limit|, scale), that is by more than rounding.

    "At most" is ``~above(values, limit, …)``, "below" is ``above(limit, values, …)``.

    Args:
        values: numbers; ±Inf allowed.
        limit: what they are compared with; ±Inf allowed, and equal to itself.
        slack: see :func:`tolerance`.
        scale: the size of the numbers whose difference or sum is compared: 1 for cosines.
    """
    bound = np.asarray(limit, dtype=np.float64)
    size = np.maximum(np.abs(bound), scale)
    return np.asarray(np.asarray(values) > bound + slack * np.where(np.isfinite(size), size, 0.0))


def lowest(values: Floats, slack: float, scale: float = 0.0) -> int:
    """The first position whose value is not above the minimum."""
    return int(np.argmin(above(values, values.min(), slack, scale)))


def levels(values: Floats, slack: float, scale: float = 0.0) -> NDArray[np.intp]:
    """(…) 0 for the lowest values, 1 for the next …; values that are not above a level's lowest share it.

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
    """(…) the values, each replaced by the lowest of its level: for algorithms that compare exactly."""
    level = levels(values, slack, scale)
    least = np.full(level.max(initial=-1) + 1, np.inf)
    np.minimum.at(least, level.ravel(), values.ravel())
    result: NDArray[np.float64] = least[level]
    return result


def _begins(ordered: Floats, slack: float, scale: float) -> NDArray[np.bool_]:
    """(k,) where a level begins in ascending values."""
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
