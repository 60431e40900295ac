"""Metrics of labels: which clients are labeled malicious, when, and at what cost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import ParameterError
from ._tables import mean, mean_ratio, took_part
from .scores import mean_auroc

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def detection_metrics(
    malicious: ArrayLike,
    suspects: ArrayLike,
    scores: ArrayLike | None = None,
    participated: ArrayLike | None = None,
    aggregated: ArrayLike | None = None,
) -> dict[str, float]:
    """DACC = (TP + TN)/n, FPR = FP/(FP + TN), FNR = FN/(FN + TP), from labels or from rounds.

    Args:
        malicious: (n,) bool, the truth.
        suspects: (n,) bool, the labels of the clients at the end of a run (DACC, FPR, FNR); or (T, n),
            the suspects of each round. Rates are then averaged over rounds (ADACC, AFPR, AFNR), which
            suits methods that never label a client permanently.
        scores: (n,) or (T, n), higher = more suspicious; adds "auroc", averaged over the rounds in
            which it is defined. +Inf is allowed, NaN marks a client that was not scored.
        participated: (T, n) bool, who took part; all clients if absent. Absent clients do not count in a
            round's rates or AUROC, and are not aggregated.
        aggregated: (T, n) bool, whose update was aggregated; adds "aar".

    Returns:
        "dacc", "fpr", "fnr" (fractions), the pooled counts "tp", "fp", "tn", "fn", and if requested
        "auroc" and "aar" (rounds).

    Example:
        >>> malicious, suspects = [True, True, False, False], [True, False, False, False]
        >>> metrics = detection_metrics(malicious, suspects)
        >>> metrics["dacc"], metrics["fpr"], metrics["fnr"]
        (0.75, 0.0, 0.5)

    Raises:
        ParameterError: shapes do not fit.
    """
    truth = np.asarray(malicious, dtype=bool)
    labels = np.atleast_2d(np.asarray(suspects, dtype=bool))
    if truth.ndim != 1 or labels.shape[1:] != truth.shape:
        raise ParameterError(f"malicious has shape {truth.shape} but suspects has {np.shape(suspects)}")
    who = participated if np.ndim(suspects) == 2 else None  # end-of-run labels cover all clients
    present = took_part(who, labels, "suspects")
    counts = np.array([_confusion(truth[p], row[p]) for row, p in zip(labels, present, strict=True)])
    counts = counts.reshape(-1, 4)
    tp, fp, tn, fn = counts.T.astype(float)
    result = {
        "dacc": mean_ratio(tp + tn, tp + fp + tn + fn),
        "fpr": mean_ratio(fp, fp + tn),
        "fnr": mean_ratio(fn, fn + tp),
        "tp": float(tp.sum()),
        "fp": float(fp.sum()),
        "tn": float(tn.sum()),
        "fn": float(fn.sum()),
    }
    if scores is not None:
        table = np.atleast_2d(np.asarray(scores, dtype=float))
        result["auroc"] = mean_auroc(truth, np.where(took_part(participated, table, "scores"), table, np.nan))
    if aggregated is not None:
        rounds = np.atleast_2d(np.asarray(aggregated, dtype=bool))
        result["aar"] = aar(truth, rounds & took_part(participated, rounds, "aggregated"))
    return result


def active_metrics(
    malicious: ArrayLike,
    suspects: ArrayLike,
    active: ArrayLike,
    scores: ArrayLike | None = None,
    participated: ArrayLike | None = None,
) -> dict[str, float]:
    """The metrics of :func:`detection_metrics` over active attackers only; idle attackers do not count.

    An attacker that sends its honest update is harmless and cannot be told from an honest client. A round
    leaves out the malicious clients that are not active in it, as if they were absent. End-of-run labels
    leave out the malicious clients that were never active.

    Args:
        malicious: (n,) bool, the truth.
        suspects: (n,) or (T, n) bool, see :func:`detection_metrics`.
        active: (T, n) bool, who sent something other than its honest update.
        scores: (T, n), adds "auroc_active".
        participated: (T, n) bool, who took part; all clients if absent.

    Returns:
        "dacc_active", "fnr_active", and if requested "auroc_active".

    Raises:
        ParameterError: shapes do not fit.
    """
    truth = np.asarray(malicious, dtype=bool)
    acting = np.atleast_2d(np.asarray(active, dtype=bool))
    if truth.ndim != 1 or acting.shape[1:] != truth.shape:
        raise ParameterError(f"malicious has shape {truth.shape} but active has {acting.shape}")
    counted = took_part(participated, acting, "active") & (acting | ~truth)
    if np.ndim(suspects) == 2:
        rates = detection_metrics(truth, suspects, participated=counted)
    else:
        kept = ~truth | acting.any(0)
        rates = detection_metrics(truth[kept], np.asarray(suspects, dtype=bool)[kept])
    result = {"dacc_active": rates["dacc"], "fnr_active": rates["fnr"]}
    if scores is not None:
        result["auroc_active"] = mean_auroc(truth, np.where(counted, np.asarray(scores, dtype=float), np.nan))
    return result


def aar(malicious: ArrayLike, aggregated: ArrayLike) -> float:
    """Mean over malicious clients of the number of rounds in which they were aggregated.

    Args:
        malicious: (n,) bool.
        aggregated: (T, n) bool.

    Returns:
        Rounds; NaN without malicious clients.
    """
    truth = np.asarray(malicious, dtype=bool)
    table = np.atleast_2d(np.asarray(aggregated, dtype=bool))
    if truth.ndim != 1 or table.shape[1:] != truth.shape:
        raise ParameterError(f"malicious has shape {truth.shape} but aggregated has {table.shape}")
    return mean(table[:, truth].sum(0).astype(float))


def rounds_to_detection(
    malicious: ArrayLike, suspects: ArrayLike, attacking: ArrayLike
) -> tuple[float, float]:
    """The number of rounds of attack until a client is first a suspect while it attacks.

    Args:
        malicious: (n,) bool.
        suspects: (T, n) bool, the suspects of each round.
        attacking: (T, n) bool, who attacked in each round.

    Returns:
        The mean over the caught clients (1 = caught in their first attack; NaN if none was caught), and the
        share of caught clients among the malicious clients that attacked (NaN if none attacked).

    Raises:
        ParameterError: shapes do not fit.
    """
    truth = np.asarray(malicious, dtype=bool)
    flagged, active = (np.atleast_2d(np.asarray(table, dtype=bool)) for table in (suspects, attacking))
    if truth.ndim != 1 or flagged.shape != active.shape or flagged.shape[1:] != truth.shape:
        raise ParameterError(
            f"malicious has shape {truth.shape}, suspects {flagged.shape} and attacking {active.shape}"
        )
    waits = []
    attackers = np.flatnonzero(truth & active.any(0))
    for client in attackers:
        caught = flagged[active[:, client], client]
        if caught.any():
            waits.append(float(caught.argmax() + 1))
    share = len(waits) / len(attackers) if len(attackers) else float("nan")
    return mean(np.array(waits)), share


def benign_excluded(malicious: ArrayLike, participated: ArrayLike, weights: ArrayLike) -> float:
    """Mean over rounds of the number of benign participants that were excluded (weight 0).

    Args:
        malicious: (n,) bool.
        participated: (T, n) bool.
        weights: (T, n) the weight of each client in the aggregate.

    Returns:
        Clients per round.

    Raises:
        ParameterError: shapes do not fit.
    """
    truth = np.asarray(malicious, dtype=bool)
    present = np.atleast_2d(np.asarray(participated, dtype=bool))
    share = np.atleast_2d(np.asarray(weights, dtype=float))
    if truth.ndim != 1 or present.shape != share.shape or present.shape[1:] != truth.shape:
        raise ParameterError(
            f"malicious has shape {truth.shape}, participated {present.shape} and weights {share.shape}"
        )
    return float((~truth & present & (share == 0)).sum(1).mean())


def fpr_by_skew(
    malicious: ArrayLike,
    suspects: ArrayLike,
    skew: ArrayLike,
    participated: ArrayLike | None = None,
    parts: int = 3,
) -> list[float]:
    """FPR of equal parts of the benign clients, from the least to the most skewed part.

    Args:
        malicious: (n,) bool.
        suspects: (n,) or (T, n) bool, as in :func:`detection_metrics`.
        skew: (n,), see :func:`label_skew`; clients of equal skew are ordered by number.
        participated: (T, n) bool; all clients if absent.
        parts: how many parts; their sizes differ by at most one.

    Returns:
        A fraction for each part, averaged over rounds; NaN for a part without clients.

    Raises:
        ParameterError: shapes do not fit.
    """
    truth, values = np.asarray(malicious, dtype=bool), np.asarray(skew, dtype=float)
    labels = np.atleast_2d(np.asarray(suspects, dtype=bool))
    if truth.ndim != 1 or labels.shape[1:] != truth.shape or values.shape != truth.shape:
        raise ParameterError(
            f"malicious has shape {truth.shape}, suspects {np.shape(suspects)} and skew {values.shape}"
        )
    present = took_part(participated, labels, "suspects")
    benign = np.flatnonzero(~truth)
    ordered = benign[np.argsort(values[benign], kind="stable")]
    return [
        mean_ratio((labels & present)[:, part].sum(1), present[:, part].sum(1))
        for part in np.array_split(ordered, parts)
    ]


def _confusion(truth: NDArray[np.bool_], labels: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    tp, fp = int((truth & labels).sum()), int((~truth & labels).sum())
    return tp, fp, int((~truth & ~labels).sum()), int((truth & ~labels).sum())
