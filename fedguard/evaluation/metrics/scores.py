"""Metrics of scores: how well they separate malicious from benign clients, at any threshold."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import ParameterError
from ...core.ranks import mean_rank
from ._tables import mean

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def auroc(malicious: ArrayLike, scores: ArrayLike) -> float:
    """P(score of a malicious client > score of a benign one) + ½ P(equal): the Mann-Whitney form.

    Args:
        malicious: (n,) bool.
        scores: (n,); +Inf allowed, NaN = not scored, left out.

    Returns:
        A fraction; NaN unless both kinds of client were scored.

    Raises:
        ParameterError: shapes do not fit.

    Example:
        >>> auroc([True, True, False, False], [0.9, 0.4, 0.4, 0.1])
        0.875
    """
    truth, values = _scored(malicious, scores)
    if not _both(truth):
        return float("nan")
    positive, negative = int(truth.sum()), int((~truth).sum())
    ranks = mean_rank(values)
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def average_precision(malicious: ArrayLike, scores: ArrayLike) -> float:
    """Σ_k (R_k − R_{k−1}) P_k over the distinct thresholds, from the highest: precision P, recall R.

    Args:
        malicious: (n,) bool.
        scores: (n,); +Inf allowed, NaN = not scored, left out.

    Returns:
        A fraction; NaN unless both kinds of client were scored.

    Raises:
        ParameterError: shapes do not fit.
    """
    truth, values = _scored(malicious, scores)
    if not _both(truth):
        return float("nan")
    order = np.argsort(-values, kind="stable")
    ordered = values[order]
    last = np.append(ordered[1:] != ordered[:-1], True)  # equal scores are one threshold
    hits = np.cumsum(truth[order])[last]
    flagged = np.flatnonzero(last) + 1
    return float(np.sum(np.diff(hits, prepend=0) * hits / flagged) / truth.sum())


def tpr_at_fpr(malicious: ArrayLike, scores: ArrayLike, fpr: float = 0.01) -> float:
    """The largest TPR of any threshold whose FPR is at most ``fpr``.

    Args:
        malicious: (n,) bool.
        scores: (n,); +Inf allowed, NaN = not scored, left out.
        fpr: the largest allowed share of flagged benign clients.

    Returns:
        A fraction; NaN unless both kinds of client were scored.

    Raises:
        ParameterError: shapes do not fit.
    """
    truth, values = _scored(malicious, scores)
    if not _both(truth):
        return float("nan")
    benign = np.sort(values[~truth])[::-1]
    allowed = int(np.floor(fpr * len(benign) + 1e-9))
    limit = benign[allowed] if allowed < len(benign) else -np.inf
    return float((values[truth] > limit).mean())


def mean_over_rounds(
    measure: Callable[[ArrayLike, ArrayLike], float], malicious: ArrayLike, scores: ArrayLike
) -> float:
    """The mean of a measure over the rounds of a (T, n) table of scores in which it is defined."""
    return mean(np.array([measure(malicious, row) for row in np.atleast_2d(np.asarray(scores, dtype=float))]))


def mean_auroc(malicious: ArrayLike, scores: ArrayLike) -> float:
    """The mean of :func:`auroc` over the rounds of a (T, n) table in which it is defined."""
    return mean_over_rounds(auroc, malicious, scores)


def _scored(malicious: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Truth and scores of the scored clients."""
    values = np.asarray(scores, dtype=float)
    truth = np.asarray(malicious, dtype=bool)
    if truth.ndim != 1 or values.shape != truth.shape:
        raise ParameterError(f"malicious has shape {truth.shape} but scores has {values.shape}")
    known = ~np.isnan(values)
    return truth[known], values[known]


def _both(truth: NDArray[np.bool_]) -> bool:
    return bool(truth.any() and not truth.all())
