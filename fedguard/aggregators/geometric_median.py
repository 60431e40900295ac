"""Geometric median by smoothed Weiszfeld iterations."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..aggregator import Aggregator
from ..card import Card
from ..errors import ParameterError
from ..round import Round


class GeometricMedian(Aggregator):
    """argmin_v Σ_i a_i ‖u_i − v‖, by v ← Σ b_i u_i / Σ b_i with b_i = a_i / max(ν, ‖u_i − v‖).

    Every iterate is a weighted mean of the updates, so the iteration runs on the n coefficients and
    the Gram matrix: ‖u_i − v‖² = (eᵢ − c)ᵀ G (eᵢ − c), and the d-dimensional sum is taken once.

    Args:
        iterations: at most so many; RFA needs 3 in practice, we go on until nothing moves.
        smoothing: ν, keeps the division finite when v meets a client.
        tolerance: stop when no coefficient moves by more.

    Source: Pillutla et al., RFA, IEEE TSP 2022, Algorithm 2 (here with equal a_i times the policy's
    weight; start at the weighted mean).
    """

    card = Card("geometric_median", "the point closest to all updates", "Pillutla et al., RFA, IEEE TSP 2022")

    def __init__(self, iterations: int = 100, smoothing: float = 1e-6, tolerance: float = 1e-9) -> None:
        if iterations < 1 or smoothing <= 0 or tolerance < 0:
            raise ParameterError("geometric_median needs iterations >= 1, smoothing > 0, tolerance >= 0")
        self.iterations = iterations
        self.smoothing = smoothing
        self.tolerance = tolerance

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Return the geometric median."""
        gram = round.updates.gram
        base = torch.from_numpy(weights).to(gram.device)
        share = base / base.sum()
        for _ in range(self.iterations):
            pull = gram @ share
            distances = (gram.diagonal() - 2 * pull + share @ pull).clamp(min=0).sqrt()
            new = base / distances.clamp(min=self.smoothing)
            new = new / new.sum()
            moved = float((new - share).abs().max())
            share = new
            if moved <= self.tolerance:
                break
        return torch.cat([share @ block for block in round.updates.blocks()]).float()
