"""Residual-based reweighting: fit a robust line to every parameter's sorted values."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from .mean import weighted_mean

#: Columns processed at a time; the slopes are (n, n, columns).
COLUMNS_BYTES = 64 * 2**20
LARGEST = torch.finfo(torch.float32).max


class IRLS(Aggregator):
    """Σ_i W_i u'_i / Σ_i W_i, where W_i measures how well client i fits a robust regression.

    Per parameter, the n values are regressed on their ranks x by the repeated median (slope: the median
    over i of the median over j ≠ i of (y_j − y_i)/(x_j − x_i); the intercept likewise). The residual of
    each is standardized by 1.4826 (1 + 5/(n − 1)) · median |residual|, e_i, and its confidence is
    w_i = √(1 − h_i)/|e_i| · min(|e_i|/√(1 − h_i), λ √(2/n)), at most 1, with h_i the leverage of rank i. A
    value with a confidence below δ is replaced by the line. W_i sums w_i over parameters, each weighted by
    the standard deviation of its confidences; without any such spread, all W_i are equal. The policy's
    weight multiplies W_i.

    Args:
        scale: λ; 2 in the paper.
        threshold: δ in [0, 1]; 0.1 in the paper.

    Raises:
        ParameterError: a parameter out of range.

    Source: Fu et al., Attack-Resistant Federated Learning with Residual-based Reweighting, 2019, §3.
    """

    card = Card(
        "irls",
        "clients weighted by their residuals to a robust line",
        "Fu et al., Attack-Resistant Federated Learning, 2019",
    )

    def __init__(self, scale: float = 2.0, threshold: float = 0.1) -> None:
        if not 0 < scale < math.inf:
            raise ParameterError(f"irls: scale is {scale}; use a finite number above 0")
        if not 0 <= threshold <= 1:
            raise ParameterError(f"irls: threshold is {threshold}; use a number in [0, 1]")
        self.scale = scale
        self.threshold = threshold

    def min_clients(self) -> int:
        """3, as a line through two values fits both exactly."""
        return 3

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Reweight every parameter, then average."""
        by_id = sorted(
            range(round.n), key=lambda i: str(round.client_ids[i])
        )  # equal values are ranked by id
        round, weights = round.take(by_id), weights[by_id]
        n, matrix = round.n, round.updates.matrix
        width = max(1, COLUMNS_BYTES // (8 * n * n))
        total = torch.zeros(n, dtype=torch.float64, device=matrix.device)
        repaired = torch.empty_like(matrix)
        for start in range(0, round.updates.d, width):
            values = matrix[:, start : start + width].double()
            confidence, line = self._confidence(values)
            total += (confidence * confidence.std(0, correction=0)).sum(1)
            kept = torch.where(confidence >= self.threshold, values, line)
            repaired[:, start : start + width] = kept.clamp(-LARGEST, LARGEST)  # a line may exceed float32
        share = total.cpu().numpy() * weights
        return weighted_mean(round.with_updates(repaired), share if share.any() else weights)

    def _confidence(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """(n, columns) confidences in [0, 1], and the line at every client's rank."""
        n = len(values)
        ranks = values.argsort(dim=0, stable=True).argsort(dim=0).double()
        slope, intercept = _repeated_median(ranks, values)
        line = intercept + slope * ranks
        residual = values - line
        spread = 1.4826 * (1 + 5 / (n - 1)) * _median(residual.abs(), 0)
        e = residual.abs() / spread
        x = torch.arange(n, dtype=torch.float64, device=values.device)
        leverage = 1 / n + (x - x.mean()).square() / (x - x.mean()).square().sum()
        free = (1 - leverage[ranks.long()]).clamp(min=0).sqrt()
        limit = self.scale * math.sqrt(2 / n)
        confidence = (free / e * limit).clamp(max=1)
        return torch.where(residual == 0, 1.0, confidence.nan_to_num(0.0)), line


def _repeated_median(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """(columns,) slope and intercept of Siegel's repeated median per column of (n, columns)."""
    n = len(y)
    dx, dy = x[None] - x[:, None], y[None] - y[:, None]
    off = ~torch.eye(n, dtype=torch.bool, device=y.device)
    slopes = (dy / dx)[off].view(n, n - 1, -1)
    cross = x[None] * y[:, None] - x[:, None] * y[None]
    intercepts = (cross / dx)[off].view(n, n - 1, -1)
    return _median(_median(slopes, 1), 0), _median(_median(intercepts, 1), 0)


def _median(values: Tensor, dim: int) -> Tensor:
    ordered = values.sort(dim=dim).values
    n = values.shape[dim]
    return (ordered.select(dim, (n - 1) // 2) + ordered.select(dim, n // 2)) / 2
