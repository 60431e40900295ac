"""RFA: a few steps toward the geometric median, weighted by sample counts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..contracts.card import Card
from ..contracts.round import Round
from .geometric_median import GeometricMedian


class RFA(GeometricMedian):
    """argmin_v Σ_i a_i ‖u_i − v‖ with a_i = policy weight × claimed sample count, by a few Weiszfeld steps.

    Starts at the weighted mean. Shares its arithmetic with ``geometric_median``, which iterates to
    convergence and ignores sample counts.

    Args:
        iterations: R; 3 in the paper's experiments.
        smoothing: ν, keeps the division finite if v coincides with an update.

    Source: Pillutla et al., RFA, IEEE TSP 2022, Algorithm 2.
    """

    card = Card(
        "rfa", "smoothed Weiszfeld steps to the geometric median", "Pillutla et al., RFA, IEEE TSP 2022"
    )

    def __init__(self, iterations: int = 3, smoothing: float = 1e-6) -> None:
        super().__init__(iterations, smoothing, tolerance=0.0)

    def importance(self, round: Round, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return policy weight × claimed sample count."""
        share: NDArray[np.float64] = weights * (round.num_examples / round.num_examples.max())
        return share
