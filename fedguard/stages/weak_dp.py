"""Weak differential privacy: clip updates, and add a little noise to their aggregate."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.stage import Stage
from ..core.errors import ParameterError
from .clip_and_noise import gaussian
from .norm_clipping import clipped


class WeakDP(Stage):
    """u_i ← u_i · min(1, M / ‖u_i‖) before the aggregator, and N(0, σ²) on every parameter after it.

    "Weak", as σ is far too small for a privacy guarantee.

    Args:
        noise: σ; 0.025 in the paper.
        bound: M; None does not clip.

    Raises:
        ParameterError: a parameter out of range.

    Source: Sun et al., Can You Really Backdoor Federated Learning?, 2019, §5.
    """

    card = Card(
        "weak_dp",
        "clip, then add a little noise to the aggregate",
        "Sun et al., Can You Really Backdoor Federated Learning?, 2019",
    )

    def __init__(self, noise: float = 0.025, bound: float | None = None) -> None:
        if not 0 <= noise < math.inf:
            raise ParameterError(f"weak_dp: noise is {noise}; use a finite number from 0")
        if bound is not None and not 0 < bound < math.inf:
            raise ParameterError(f"weak_dp: bound is {bound}; use a finite number above 0, or null")
        self.noise = noise
        self.bound = bound

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Clip, if there is a bound."""
        return (round if self.bound is None else clipped(round, self.bound)), weights

    def after(self, round: Round, update: Tensor) -> Tensor:
        """Add the noise."""
        return update + gaussian(round, self.name, update, self.noise)
