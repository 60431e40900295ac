"""Geometric median by smoothed Weiszfeld iterations."""

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
from ..geometry.updates import NEAR_DUPLICATE, Updates
from .mean import weighted_mean


class GeometricMedian(Aggregator):
    """argmin_v Σ_i a_i ‖u_i − v‖, by v ← Σ b_i u_i / Σ b_i with b_i = a_i / max(ν, ‖u_i − v‖).

    Every iterate is a weighted mean of the updates, so the iteration runs on the n coefficients and the Gram
    matrix: ‖u_i − v‖² = (eᵢ − c)ᵀ G (eᵢ − c), and the d-dimensional sum is computed once. If needed, G is
    centered at the client with the smallest sum of distances: with G centered at the mean, one huge update
    would cancel all digits of the other distances.

    Args:
        iterations: maximum number of steps. RFA needs 3 in practice; this rule iterates to convergence, which
            takes many steps if nearly half of the updates are huge (a step shrinks v only by m / (n − m)).
        smoothing: ν, keeps the division finite if v coincides with an update.
        tolerance: stop when v moves by less than this share of its median distance to the clients.

    Source: Pillutla et al., RFA, IEEE TSP 2022, Algorithm 2 (here a_i is the policy's weight; starts at the
    weighted mean).
    """

    card = Card("geometric_median", "the point closest to all updates", "Pillutla et al., RFA, IEEE TSP 2022")

    def __init__(self, iterations: int = 1000, smoothing: float = 1e-6, tolerance: float = 1e-9) -> None:
        if iterations < 1 or not 0 < smoothing < math.inf or not tolerance >= 0:
            raise ParameterError(
                f"geometric_median needs iterations >= 1, a finite smoothing > 0 and tolerance >= 0, "
                f"got {iterations}, {smoothing} and {tolerance}"
            )
        self.iterations = iterations
        self.smoothing = smoothing
        self.tolerance = tolerance

    def importance(self, round: Round, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) a_i, up to a common factor."""
        return weights

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Return the geometric median."""
        distances = round.updates.sq_distances.sqrt()
        share = self.importance(round, weights)
        base = torch.from_numpy(share / share.max()).to(distances.device)
        gram = _gram_about(round.updates, int((distances @ base).argmin()))
        current = base / base.sum()
        for _ in range(self.iterations):
            pull = gram @ current
            distances = (gram.diagonal() - 2 * pull + current @ pull).clamp(min=0).sqrt()
            new = base / distances.clamp(min=self.smoothing)
            new = new / new.sum()
            step = new - current
            current = new
            moved = (step @ gram @ step).clamp(min=0).sqrt()
            if moved <= self.tolerance * distances.median():
                break
        return weighted_mean(round, current.cpu().numpy())


def _gram_about(updates: Updates, client: int) -> Tensor:
    """(n, n) Gram matrix centered at a client; at the mean, as cached, if no update is far out or near."""
    others = updates.sq_distances[client].clone()
    others[client] = math.inf
    if others.min() >= NEAR_DUPLICATE * updates.centered_gram.diagonal().max():
        return updates.centered_gram
    return updates.gram_about(client)
