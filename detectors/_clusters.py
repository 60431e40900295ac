"""Clustering helpers that several detectors share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedguard.core.ids import ClientId
from fedguard.core.ties import EPSILON, snapped, tolerance

from ._ranking import by_id


def hdbscan_labels(
    distances: NDArray[np.float64],
    min_cluster_size: int,
    client_ids: Sequence[ClientId],
    slack: float | None = None,
    scale: float = 0.0,
) -> NDArray[np.intp]:
    """(n,) HDBSCAN's cluster of every client, −1 for outliers; a single cluster is allowed.

    Clients are sorted by id first, so the order of arrival does not decide ties. Distances that are equal up
    to rounding are ties. A single client is a cluster, and so is a set of identical clients.

    Args:
        distances: (n, n) finite, symmetric.
        min_cluster_size: at least 2, at most n.
        client_ids: the n clients.
        slack: the relative rounding error of the distances; None assumes a million parameters.
        scale: see :func:`fedguard.core.ties.above`.
    """
    n = len(distances)
    if n < 2 or not distances.any():
        return np.zeros(n, dtype=np.intp)
    from sklearn.cluster import HDBSCAN  # a slow import

    order = by_id(client_ids)
    table = snapped(distances[np.ix_(order, order)], tolerance(n) if slack is None else slack, scale)
    size = max(2, min(min_cluster_size, n))
    if 2 * size <= n:  # without a majority requirement, the order in which ties merge matters
        table = _in_order(table)
    found = HDBSCAN(
        min_cluster_size=size, min_samples=1, metric="precomputed", allow_single_cluster=True, copy=True
    ).fit(table)
    labels = np.empty(n, dtype=np.intp)
    labels[order] = found.labels_
    return labels


def _in_order(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Break ties by changing the last bits: the first pair becomes the nearest.

    Scikit-learn sorts ties with NumPy, whose order of ties depends on the CPU.
    """
    pairs = np.triu_indices(len(distances), 1)
    place = np.zeros_like(distances)
    place[pairs] = np.arange(len(pairs[0]))
    apart: NDArray[np.float64] = distances * (1 + 4 * EPSILON * (place + place.T))
    return apart


def largest_cluster(labels: NDArray[np.intp]) -> NDArray[np.bool_]:
    """(n,) the largest cluster, the first of equally large ones; all False if there is no cluster."""
    if (labels < 0).all():
        return np.zeros(len(labels), dtype=bool)
    largest: NDArray[np.bool_] = labels == np.argmax(np.bincount(labels[labels >= 0]))
    return largest


def around_cut(values: NDArray[np.float64], suspects: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Map non-negative values to [0, 1) for accepted clients and [1, 2) for suspects, keeping their order.

    For methods that label by clusters: suspects score above accepted clients, and outer clients score higher.
    """
    scale = float(np.median(values))
    squeezed = values / (values + (scale if scale > 0 else 1.0))
    return np.where(np.isfinite(squeezed), squeezed, np.nextafter(1, 0)) + suspects


def mean_to(distances: NDArray[np.float64], members: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(n,) mean distance to the other members; to all other clients if there is no member."""
    chosen = members if members.any() else np.ones(len(distances), dtype=bool)
    counts = chosen.sum() - chosen
    total = np.empty(len(distances))
    for i, row in enumerate(distances):  # a row at a time: the table may be large
        total[i] = np.where(chosen & (np.arange(len(row)) != i), row, 0.0).sum()
    means: NDArray[np.float64] = np.divide(total, counts, out=np.zeros(len(distances)), where=counts > 0)
    return means
