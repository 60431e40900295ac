"""Robust learning rate: flip coordinates where too few clients agree on the sign."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ..geometry.blocks import joined
from .mean import Mean


class RobustLearningRate(Mean):
    """FedAvg with the learning rate +1 in coordinates where |Σ_i sign(u_ij)| ≥ θ, and −1 elsewhere.

    Args:
        threshold: θ, the required agreement; the paper suggests a value above the number of malicious clients
            and uses 4 to 8. Above n, every coordinate is flipped.
        weighting: FedAvg's weighting, see ``mean``.

    Raises:
        ParameterError: a negative threshold.

    Source: Ozdayi et al., AAAI 2021, §4.
    """

    card = Card(
        "robust_learning_rate",
        "FedAvg, reversed where clients disagree on the sign",
        "Ozdayi et al., Defending against Backdoors with Robust Learning Rate, AAAI 2021",
    )

    def __init__(self, threshold: int = 4, weighting: Literal["examples", "uniform"] = "examples") -> None:
        super().__init__(weighting)
        if threshold < 0:
            raise ParameterError(f"robust_learning_rate: threshold is {threshold}; it cannot be negative")
        self.threshold = threshold

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Flip the mean where agreement is below the threshold."""
        agreement = joined(round.updates.map_blocks(lambda u: abs((u > 0).sum(0) - (u < 0).sum(0))))
        mean = super().aggregate(round, weights)
        return torch.where(agreement >= self.threshold, mean, -mean)
