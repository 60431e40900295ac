"""Cluster analysis: exact 2-means on a line, gap statistic, k-means, mean shift, connected components."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.ties import above, levels, lowest, tolerance

#: Rows of the distance matrix that are computed at a time.
ROWS = 1024
#: The maximum number of steps of a mean shift.
MOST_STEPS = 300


def two_means(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) True for the higher of the two clusters of exact 2-means on a line.

    Both clusters are intervals, so the function tries all cuts of the sorted values. Of equally good cuts it
    takes the highest. Infinite values, if any, are the higher cluster. If all values are equal, the higher
    cluster is empty. All comparisons are up to rounding.

    Args:
        values: (n,); +Inf allowed.
    """
    infinite = np.isposinf(values)
    if infinite.any():
        return infinite
    ordered = np.sort(values)
    n, slack = len(ordered), tolerance(len(ordered))
    if n < 2 or not above(ordered[-1], ordered[0], slack, abs(ordered[-1])):
        return np.zeros(n, dtype=bool)
    scaled = (ordered - ordered[0]) / (ordered[-1] - ordered[0])
    sums, squares = np.cumsum(scaled), np.cumsum(scaled**2)
    low = np.arange(1, n)
    inertia = squares[-1] - sums[:-1] ** 2 / low - (sums[-1] - sums[:-1]) ** 2 / (n - low)
    inertia[~above(scaled[1:], scaled[:-1], slack)] = np.inf  # equal values stay together
    cut = n - 2 - lowest(inertia[::-1], slack, scale=1.0)
    higher: NDArray[np.bool_] = values > ordered[cut]
    return higher


def gap_statistic(points: NDArray[np.float64], max_k: int, references: int, draw: torch.Generator) -> int:
    """The number of clusters: the smallest k ≥ 1 with Gap(k) ≥ Gap(k + 1) − s_{k+1}.

    Gap(k) = mean_b log W*_kb − log W_k with W_k the within-cluster sum of squares of k-means, W*_kb that of
    the b-th reference set, uniform in the points' bounding box; s_k = sd_b · √(1 + 1/B).

    Args:
        points: (n,) or (n, dimensions), finite.
        max_k: the largest k considered.
        references: B, the number of reference sets.
        draw: the generator for the reference sets.

    Source: Tibshirani et al., JRSS B 2001, §4.
    """
    table = points.reshape(len(points), -1)
    low, high = table.min(0), table.max(0)
    slack, size = tolerance(len(table)), np.abs(table).max(initial=0.0)
    if len(table) < 2 or not above(high, low, slack, size).any():
        return 1
    table = (table - low) / np.where(high > low, high - low, 1)  # the gap does not depend on the scale
    table *= (high - low) / (high - low).max()
    width = (high - low) / (high - low).max()
    boxes = torch.rand((references, *table.shape), generator=draw, dtype=torch.float64).numpy() * width
    distinct = int(same(table, tolerance(len(table), digits=9)).max()) + 1
    gap, limit = _gap(table, boxes, 1)[0], min(max_k, distinct)
    for k in range(1, limit):
        following, error = _gap(table, boxes, k + 1)
        if not above(following - error, gap, slack, scale=1.0):
            return k
        gap = following
    return limit


def _gap(table: NDArray[np.float64], boxes: NDArray[np.float64], k: int) -> tuple[float, float]:
    """Gap(k) and s_k."""
    logs = np.array([np.log(_inertia(box, k)) for box in boxes])
    own = _inertia(table, k)
    gap = np.inf if own <= 1e-24 else float(logs.mean() - np.log(own))
    return gap, float(logs.std() * np.sqrt(1 + 1 / len(boxes)))


def _inertia(points: NDArray[np.float64], k: int) -> float:
    if k == 1:
        return float(((points - points.mean(0)) ** 2).sum())
    if k >= len(points):
        return float(np.finfo(float).tiny)
    return float(k_means(points, k, starts=5).inertia_)


def same(points: NDArray[np.float64], slack: float) -> NDArray[np.intp]:
    """(n,) group numbers from 0; points (n, k), of size about 1, share a group if equal up to rounding."""
    columns = np.stack([levels(column, slack, scale=1.0) for column in points.T], 1)
    groups: NDArray[np.intp] = np.unique(columns, axis=0, return_inverse=True)[1].ravel()
    return groups


def k_means(points: NDArray[np.float64], k: int, starts: int = 10) -> Any:
    """A fitted scikit-learn KMeans with a fixed seed and no warning about coinciding points."""
    from sklearn.cluster import KMeans  # a slow import
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(k, n_init=starts, random_state=0).fit(points)


def _distances(one: Any, other: Any) -> NDArray[np.float64]:
    """(m, n) Euclidean distances of the rows."""
    from scipy.spatial.distance import cdist  # a slow import

    table: NDArray[np.float64] = cdist(one, other)
    return table


def bandwidth_of(points: NDArray[np.float64], quantile: float) -> float:
    """The mean distance to the ⌊quantile · n⌋-th nearest point, counting the point itself (scikit-learn)."""
    kth = max(1, int(len(points) * quantile)) - 1
    parts = np.array_split(points, 1 + len(points) // ROWS)
    nearest = [np.partition(_distances(part, points), kth)[:, kth] for part in parts]
    return float(np.concatenate(nearest).mean())


def mean_shift(points: NDArray[np.float64], bandwidth: float, slack: float) -> NDArray[np.float64]:
    """(k, columns) the centers of mean shift with a flat kernel, by decreasing number of points.

    Differences from scikit-learn's MeanShift: distances equal to the bandwidth up to rounding are within it,
    distances are computed without matrix products, and ties in the number of points are broken by the larger
    first column. A center within the bandwidth of an earlier one is dropped.

    Args:
        points: (n, columns), finite, of size about 1.
        bandwidth: the kernel's radius, above 0.
        slack: the rounding error of a distance.

    Source: Comaniciu & Meer, IEEE TPAMI 2002.
    """
    found: dict[bytes, tuple[NDArray[np.float64], int]] = {}
    for point in points:
        center = point
        for _ in range(MOST_STEPS):
            near = ~above(_distances(center[None], points)[0], bandwidth, slack, scale=1.0)
            before, center = center, points[near].mean(0)
            if np.linalg.norm(center - before) <= 1e-3 * bandwidth:
                break
        found[near.tobytes()] = center, int(near.sum())
    centers = np.array([center for center, _ in found.values()])
    keys = [-levels(column, slack, scale=1.0) for column in centers.T[::-1]]
    kept: list[NDArray[np.float64]] = []
    most_first = np.array([-count for _, count in found.values()])
    for i in np.lexsort([*keys, most_first]):
        if not kept or above(_distances(centers[i : i + 1], kept), bandwidth, slack, scale=1.0).all():
            kept.append(centers[i])
    return np.array(kept)


def nearest_center(
    points: NDArray[np.float64], centers: NDArray[np.float64], within: float, slack: float
) -> NDArray[np.intp]:
    """(n,) the index of the nearest center (the first of ties); −1 if none is within the distance."""
    distances = _distances(points, centers)
    nearest = np.argmin(above(distances, distances.min(1, keepdims=True), slack, scale=1.0), axis=1)
    far = above(np.take_along_axis(distances, nearest[:, None], 1)[:, 0], within, slack, scale=1.0)
    return np.where(far, -1, nearest)


def connected(near: Tensor) -> list[Tensor]:
    """The connected components (positions) of two or more clients in the graph ``near``."""
    if not near.any():
        return []
    from scipy.sparse.csgraph import connected_components  # a slow import

    _, label = connected_components(near.cpu().numpy(), directed=False)
    groups = [np.flatnonzero(label == g) for g in np.flatnonzero(np.bincount(label) > 1)]
    return [torch.as_tensor(group, device=near.device) for group in groups]
