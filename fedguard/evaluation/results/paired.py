"""Statistics of paired differences over a few seeds: interval, effect size, test, and the seeds it takes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.seeds import numpy_generator

#: Up to this many differences, all bootstrap samples are enumerated (6⁶ = 46,656); beyond, they are drawn.
ENUMERATED = 6
_DRAWS = 10_000
#: The most seeds that are searched for a power of 80 %.
MAX_SEEDS = 10_000
#: The fewest equal differences with p < 5 % in the test of signs: 2 · 2⁻⁶ = 0.031.
EQUAL_NEEDED = 6
TestKind = Literal["t", "signs"]
#: Differences closer than this are equal but for rounding.
_ROUNDING = 1e-12
_STEP = 1_000_000
_NAN = math.nan


class Paired(NamedTuple):
    """What n paired differences d₁ … dₙ say; NaN where n is too small.

    Attributes:
        n: how many there are.
        mean: d̄.
        low: d̄ − t_{0.975, n−1} s/√n; NaN for equal differences, which leave s = 0.
        high: d̄ + t_{0.975, n−1} s/√n, likewise.
        boot_low: the 2.5 % quantile of the mean of n differences drawn with replacement, likewise.
        boot_high: its 97.5 % quantile, likewise.
        effect: Hedges's g of the differences: J(n−1) d̄/s, likewise; 0 if all differences are 0.
        p: of :func:`paired_test`.
        needed: the fewest seeds with which the test has a power of 80 % if d̄/s is the truth; None if no
            number up to :data:`MAX_SEEDS` has. For equal differences, the fewest with p < 5 %.
        test: "t" or "signs", see :func:`paired_test`; empty if there was none.
    """

    n: int
    mean: float
    low: float
    high: float
    boot_low: float
    boot_high: float
    effect: float
    p: float
    needed: int | None
    test: TestKind | Literal[""] = ""

    @property
    def equal(self) -> bool:
        """Whether all differences are the same, and not 0."""
        return self.test == "signs" and self.mean != 0


class Tested(NamedTuple):
    """A test of paired differences.

    Attributes:
        p: two-sided; NaN for fewer than two differences.
        kind: "t" or "signs"; empty for fewer than two differences.
    """

    p: float
    kind: TestKind | Literal[""]


def paired_test(differences: Iterable[float]) -> Tested:
    """The paired t test; for differences that are all the same, the exact test of their signs.

    Equal differences leave the t test no variance: its p of 0 would claim more than n seeds can tell. If each
    difference were as likely below 0 as above, n of the same sign would have p = 2 · 2⁻ⁿ. That is also what
    the sign-flip test and Wilcoxon's give for them. Differences of 0 have p = 1. Undefined ones (NaN) are
    left out.

    Example:
        >>> paired_test([0.1, 0.1, 0.1])
        Tested(p=0.25, kind='signs')
    """
    d = np.array([value for value in differences if not math.isnan(value)], dtype=float)
    n = len(d)
    if n < 2:
        return Tested(_NAN, "")
    if _equal(d):
        return Tested(1.0 if abs(d.mean()) <= _ROUNDING else 2.0 ** (1 - n), "signs")
    from scipy.special import stdtr  # scipy.stats takes four times as long to import

    return Tested(2 * float(stdtr(n - 1, -abs(d.mean()) / (d.std(ddof=1) / math.sqrt(n)))), "t")


def _equal(d: NDArray[np.float64]) -> bool:
    return bool(np.ptp(d) <= _ROUNDING * max(1.0, float(np.abs(d).max())))


def paired(differences: Sequence[float]) -> Paired:
    """Describe paired differences; undefined ones (NaN) are left out.

    Example:
        >>> found = paired([0.1, 0.2, 0.3])
        >>> round(found.mean, 3), round(found.low, 3), round(found.high, 3), found.needed
        (0.2, -0.048, 0.448, 5)
    """
    d = np.asarray([value for value in differences if not math.isnan(value)], dtype=float)
    n = len(d)
    if n == 0:
        return Paired(0, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, None)
    mean = float(d.mean())
    if n == 1:
        return Paired(1, mean, _NAN, _NAN, _NAN, _NAN, _NAN, _NAN, None)
    p, kind = paired_test(d)
    if kind == "signs":
        effect, needed = (0.0, None) if p == 1 else (_NAN, EQUAL_NEEDED)
        return Paired(n, 0.0 if p == 1 else mean, _NAN, _NAN, _NAN, _NAN, effect, p, needed, kind)
    from scipy.stats import t

    spread = float(d.std(ddof=1))
    half = float(t.ppf(0.975, n - 1)) * spread / math.sqrt(n)
    size = mean / spread
    effect, needed = unbiased(n - 1) * size, seeds_needed(abs(size))
    return Paired(n, mean, mean - half, mean + half, *bootstrap(d), effect, p, needed, kind)


def bootstrap(d: NDArray[np.float64]) -> tuple[float, float]:
    """The central 95 % of the means of n values drawn with replacement from n, all nⁿ of them if n ≤ 6.

    It assumes no normal distribution, but is too narrow for few values: it covers the mean of three normal
    values in about 2 of 3 cases, where the t interval does in 19 of 20.
    """
    n = len(d)
    if n <= ENUMERATED:
        means = np.array([sum(one) / n for one in product(d.tolist(), repeat=n)])
    else:
        draws = numpy_generator(0, "bootstrap", n).integers(0, n, size=(_DRAWS, n))
        means = np.concatenate(
            [d[rows].mean(axis=1) for rows in np.array_split(draws, -(-draws.size // _STEP))]
        )
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def unbiased(m: int) -> float:
    """Hedges's correction J(m) = Γ(m/2) / (√(m/2) Γ((m−1)/2)), for m > 1 degrees of freedom; NaN for 1."""
    if m < 2:
        return math.nan
    return math.exp(math.lgamma(m / 2) - math.lgamma((m - 1) / 2)) / math.sqrt(m / 2)


def power(size: float, n: int, level: float = 0.05) -> float:
    """The power of the two-sided paired t test with n pairs if the true d̄/s is ``size`` (noncentral t)."""
    from scipy.stats import nct, t

    limit, shift = float(t.ppf(1 - level / 2, n - 1)), size * math.sqrt(n)
    return float(nct.sf(limit, n - 1, shift) + nct.cdf(-limit, n - 1, shift))


def seeds_needed(size: float, wanted: float = 0.8) -> int | None:
    """The fewest pairs with at least this power; None beyond :data:`MAX_SEEDS`.

    It takes the observed effect for the true one. An effect seen with few seeds is uncertain, and so is this
    number.
    """
    if not size > 0:
        return None
    if size > 50:
        return 2  # the noncentral t has no digits left there
    low, high = 1, 2
    while power(size, high) < wanted:
        low, high = high, high * 2
        if low >= MAX_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(size, middle) >= wanted else (middle, high)
    return high if high <= MAX_SEEDS else None


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p: the running maximum of (m − i) p₍ᵢ₎ over the m defined values in order, at most 1.

    Example:
        >>> holm([0.01, 0.04, 0.03, float("nan")])
        [0.03, 0.06, 0.06, nan]
    """
    known = sorted((p, place) for place, p in enumerate(values) if not math.isnan(p))
    found, top = [math.nan] * len(values), 0.0
    for i, (p, place) in enumerate(known):
        top = max(top, min(1.0, (len(known) - i) * p))
        found[place] = top
    return found


def p_text(p: float, equal: bool = False) -> str:
    """A p for a table: – if undefined, no 0 however small, † for the test of the signs of equal differences.

    Example:
        >>> p_text(0.25, True), p_text(0.0412), p_text(1e-9), p_text(float("nan"))
        ('0.25†', '0.0412', '<0.001', '–')
    """
    if math.isnan(p):
        return "–"
    return ("<0.001" if p < 0.001 else f"{p:.3g}") + ("†" if equal else "")


#: What a † in :func:`p_text` means.
SIGNS_NOTE = (
    "†: the same difference in every seed leaves no variance for a t test, an interval or g; "
    "p = 2/2ⁿ of n equal signs, before Holm's correction"
)
