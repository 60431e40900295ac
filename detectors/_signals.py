"""Cheap signals about the clients of a round; higher is more suspicious."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.aggregators.median import Median
from fedguard.contracts.data import LabeledData
from fedguard.contracts.round import Round
from fedguard.core.threads import single_thread
from fedguard.core.ties import lowest, tolerance
from fedguard.geometry.tables import ROWS
from fedguard.geometry.updates import Updates
from fedguard.training.parameters import predict

#: Number of values → factor on the scale of their shortest half, which is often far too small for few. With
#: it 0.2 % of normal values exceed what 0.2 % of 20 exceed (found by simulation; a test repeats it).
FEW = {
    4: 2.79,
    5: 5.57,
    6: 1.97,
    7: 2.81,
    8: 1.59,
    9: 2.0,
    10: 1.37,
    11: 1.63,
    12: 1.24,
    13: 1.43,
    14: 1.15,
    15: 1.29,
    16: 1.09,
    17: 1.2,
    18: 1.04,
    19: 1.13,
}
#: A standard deviation of a normal sample in units of the half-width of its shortest half.
PER_HALF_WIDTH = 1 / 0.6745
#: Pairs whose log counts differ by less are ignored when the slope is estimated.
LEAST_STEP = 0.05
#: The value that replaces a loss of NaN or Inf.
WORST = 1e30
TINY = float(np.finfo(np.float32).tiny)


def shortest_half(values: NDArray[np.float64]) -> tuple[float, float]:
    """Mean and width of the shortest ⌊n/2⌋ + 1 of the sorted values; of equally short ones the first counts.

    Outliers move it little as long as they are fewer than half.
    """
    n, half = len(values), len(values) // 2 + 1
    order = np.sort(values)
    widths = order[half - 1 :] - order[: n - half + 1]
    start = lowest(widths, tolerance(n), scale=float(np.median(np.abs(values))))
    return float(order[start : start + half].mean()), float(widths[start])


def standard(values: NDArray[np.float64], floor: float) -> NDArray[np.float64]:
    """(n,) (v − c) / max(s, floor): c the mean and s the scaled half-width of the shortest half (shorth).

    For fewer than 20 values s is larger, see ``FEW``; fewer than four give 0.
    """
    n = len(values)
    if n < 4:
        return np.zeros(n)
    center, width = shortest_half(values)
    return (values - center) / max(FEW.get(n, 1.0) * PER_HALF_WIDTH * width / 2, floor)


def copies(updates: Updates) -> NDArray[np.float64]:
    """(n,) median_j r_j / r_i, r_i = min_j r_ij, r_ij = ‖u_i − u_j‖ / √(‖u_i‖ ‖u_j‖); at most 10⁶.

    Zero updates are left out (r = ∞, result 0). If the median is 0, most updates are copies and nothing tells
    the original: all get 0.
    """
    nearest = np.concatenate([ratio.min(axis=1) for _, ratio in _relative_distances(updates)])
    middle = _middle(nearest)
    return middle / np.maximum(nearest, middle * 1e-6) if middle > 0 else np.zeros_like(nearest)


def mutual_copies(updates: Updates, limit: float) -> NDArray[np.bool_]:
    """(n,) the clients with median_k r_k / r_ij > ``limit`` for exactly one other client, as that one has."""
    middle = _middle(np.concatenate([ratio.min(axis=1) for _, ratio in _relative_distances(updates)]))
    alone, other = np.zeros(updates.n, dtype=bool), np.zeros(updates.n, dtype=np.intp)
    if middle > 0:
        for rows, ratio in _relative_distances(updates):
            close = middle / np.maximum(ratio, middle * 1e-6) > limit
            alone[rows], other[rows] = close.sum(axis=1) == 1, close.argmax(axis=1)
    return alone & alone[other]


def _relative_distances(updates: Updates) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    """(rows, n) r_ij a few rows at a time, ∞ for i = j and for zero updates: the table may be large."""
    roots = np.sqrt(updates.norms.cpu().numpy())
    for start in range(0, updates.n, ROWS):
        rows = slice(start, start + ROWS)
        distance = updates.sq_distances[rows].sqrt().cpu().numpy()
        scale = roots[rows, None] * roots[None, :]
        ratio = np.divide(distance, scale, out=np.full_like(scale, np.inf), where=scale > 0)
        np.fill_diagonal(ratio[:, start:], np.inf)
        yield rows, ratio


def _middle(nearest: NDArray[np.float64]) -> float:
    some = nearest[np.isfinite(nearest)]
    return float(np.median(some)) if len(some) else 0.0


def lengths(updates: Updates) -> NDArray[np.float64]:
    """(n,) ln ‖u_i‖ minus its median."""
    norms = np.log(np.maximum(updates.norms.cpu().numpy(), TINY))
    return np.asarray(norms - np.median(norms))


def size(lengths: NDArray[np.float64], num_examples: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) ln ‖u_i‖ − b ln m_i: the length that the claimed number of samples does not explain.

    b ∈ [0, 1] is the median slope between pairs of clients (Theil–Sen).
    """
    count = np.log(num_examples)
    slopes, found = np.empty(len(count) * (len(count) - 1) // 2), 0
    for i in range(len(count) - 1):  # one client at a time: 10⁴ clients have 5·10⁷ pairs
        step = count[i] - count[i + 1 :]
        far = np.abs(step) > LEAST_STEP
        some = (lengths[i] - lengths[i + 1 :])[far] / step[far]
        slopes[found : found + len(some)] = some
        found += len(some)
    slope = float(np.median(slopes[:found], overwrite_input=True)) if found else 0.0
    return lengths - min(max(slope, 0.0), 1.0) * count


def direction(round: Round) -> NDArray[np.float64]:
    """(n,) −cos(u_i, coordinate-wise median update); 0 where one of the two is zero."""
    center = Median().aggregate(round, np.ones(round.n)).double()
    scale = round.updates.norms * center.norm()
    along = round.updates.along(center)
    return -torch.where(scale > 0, along / scale, 0.0).clamp(-1, 1).cpu().numpy()


def gain(round: Round, model: torch.nn.Module, start: torch.Tensor, data: LabeledData) -> NDArray[np.float64]:
    """(n,) 1 − G_i / median G in [−10, 1]; G_i = Σ_c max(0, L_c(w) − L_c(w + u'_i)) over the classes c.

    L_c is the mean cross-entropy on the validation samples of class c; u' is the update, shortened to the
    median length if it is longer. A client with few classes improves these and worsens others, so only
    improvements count. All 0 if the median gain is 0.
    """
    classes = [(data.labels == label).nonzero().flatten() for label in torch.unique(data.labels)]

    def losses(vector: torch.Tensor) -> NDArray[np.float64]:
        each = F.cross_entropy(predict(model, vector, data.inputs), data.labels, reduction="none").double()
        each = torch.nan_to_num(each, nan=WORST, posinf=WORST)
        return np.array([float(each[rows].mean()) for rows in classes])

    norms = round.updates.norms
    factors = (norms.median() / norms.clamp(min=TINY)).clamp(max=1).float()
    with single_thread():
        base = losses(start)
        rows = (round.updates.row(i) * factors[i] for i in range(round.n))
        better = np.array([np.maximum(base - losses(start + row), 0).sum() for row in rows])
    middle = float(np.median(better))
    return np.clip(1 - better / middle, -10, 1) if middle > 0 else np.zeros(round.n)
