"""Covariance-bound agnostic filter: lower the weights along the direction of largest variance."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ..core.ties import above, tolerance
from ..geometry.eigen import top_eigenvector


def caf_weights(gram: NDArray[np.float64], num_malicious: int) -> NDArray[np.float64]:
    """(n,) the weights c of the mean that CAF returns, see :class:`CAF`; they sum to 1.

    With D the updates minus their weighted mean and K = D Dᵀ, the covariance's largest eigenvalue is that of
    √C K √C / Σc, and the projections on its eigenvector are D v = K √C q / √(q's eigenvalue): everything is
    (n, n).

    Args:
        gram: (n, n) inner products of the updates about a point among those that lie close together.
        num_malicious: f.
    """
    n, slack = len(gram), tolerance(len(gram))
    c, best, found = np.ones(n), np.inf, np.full(n, 1 / n)
    while c.sum() > n - 2 * num_malicious:
        share = c / c.sum()
        about = np.eye(n) - share[None, :]
        centered = about @ gram @ about.T
        root = np.sqrt(c)
        inner = root[:, None] * centered * root[None, :]
        vector = top_eigenvector(torch.from_numpy(inner)).numpy()
        value = float(vector @ inner @ vector) / c.sum()
        size = float(gram.diagonal()[c > 0].max())
        if above(best, value, slack, size):
            best, found = value, share
        if not above(value, 0.0, slack, size):  # everybody who still has weight sent the same
            break
        projected = (centered @ (root * vector)) ** 2
        highest = projected[c > 0].max()
        c = c * np.where(above(highest, projected, slack), np.clip(1 - projected / highest, 0, 1), 0.0)
    return found


class CAF(Aggregator):
    """The weighted mean μ_c of least λ_max(Σ_c) along the way of a filter, from c = 1 until Σ c ≤ n − 2f.

    Each step takes the top eigenvector v of Σ_c = Σ c_i (u_i − μ_c)(u_i − μ_c)ᵀ / Σ c, with τ_i = ⟨u_i − μ_c,
    v⟩², and lowers the weights: c_i ← c_i (1 − τ_i / max τ). The maximum is over clients that still have
    weight; over all of them, as in ByzFL, a client far away would bring the filter to a halt. v is exact,
    while ByzFL takes one power iteration from a random start. Policy weights only decide who takes part.

    Args:
        num_malicious: f; needs n > 2f. None takes ⌊(n − 1)/2⌋, the most there can be.

    Source: Allouah et al., ICML 2025, Towards Trustworthy Federated Learning with Untrusted Participants,
        Algorithm 2; ByzFL's CAF.
    """

    card = Card(
        "caf",
        "mean after a filter along the directions of largest variance",
        "Allouah et al., Towards Trustworthy Federated Learning, ICML 2025",
    )

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"caf: num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """2f + 1."""
        return 2 * (self.num_malicious or 0) + 1

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Filter, then average."""
        f = (round.n - 1) // 2 if self.num_malicious is None else self.num_malicious
        # About a client in the midst of the others: the mean may be far away, and rounding with it.
        middle = int(np.median(round.updates.sq_distances.cpu().numpy(), axis=1).argmin())
        gram = round.updates.gram_about(middle).cpu().numpy().astype(np.float64)
        return round.updates.weighted_sum(caf_weights(gram, f)).float()
