"""A rate with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

#: The confidence level of all intervals.
LEVEL = 0.95


class Rate(NamedTuple):
    """k of n, and the Wilson score interval of its probability.

    Attributes:
        k: how many events.
        n: of how many.

    Source: Wilson, Probable Inference, JASA 1927.

    Example:
        >>> from fedguard.evaluation.calibration.rates import Rate
        >>> [round(end, 3) for end in Rate(1, 10).interval()]
        [0.018, 0.404]
    """

    k: int
    n: int

    @property
    def value(self) -> float:
        """k / n; NaN for n = 0."""
        return self.k / self.n if self.n else math.nan

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The ends of the interval; (0, 1) for n = 0. It takes the n events as independent."""
        if not self.n:
            return 0.0, 1.0
        from scipy.stats import binomtest  # a slow import

        found = binomtest(self.k, self.n).proportion_ci(level, method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        """In percent: ``1.2 [0.4, 3.5]``; a dash for n = 0."""
        if not self.n:
            return "–"
        low, high = self.interval()
        return f"{100 * self.value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


#: No event yet.
NOTHING = Rate(0, 0)
