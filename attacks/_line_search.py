"""Search along a ray for the factor that does the most damage."""

from __future__ import annotations

from collections.abc import Callable


def line_maximize(
    value: Callable[[float], float], evals: int, start: float, delta: float, ratio: float
) -> float:
    """The best x ≥ 0 among ``evals`` values seen.

    First steps of doubling length lead away from the best point, until one is no better. Then steps of
    shrinking length (times ``ratio``) go from the last point toward the best one, to both of its sides;
    where a step would lead below 0, it is halved until it does not.

    Args:
        value: what to maximize.
        evals: how often it may be called.
        start: the first x.
        delta: the first step.
        ratio: in (0.5, 1).

    Source: the class LineMaximize of ByzFL.
    """
    best, x, highest = start, start, value(start)
    growing = True
    for _ in range(evals - 1):
        if growing:
            x = best + delta
        elif x < best:
            x += delta
        else:
            step = delta
            while x - step < 0:
                step /= 2
            x -= step
        found = value(x)
        better = found > highest
        if better:
            best, highest = x, found
        growing = growing and better
        delta *= 2 if growing else ratio
    return best
