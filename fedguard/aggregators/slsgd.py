"""SLSGD: the trimmed mean, and only a part of the way."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from .trimmed_mean import TrimmedMean


class SLSGD(TrimmedMean):
    """w_t = (1 − α) w_{t−1} + α · trimmed mean of the local models, as an update: α · trimmed mean of u_i.

    Args:
        num_malicious: b, how many values to cut at each end; needs n > 2b. None cuts as much as possible.
        alpha: α in (0, 1]; the paper starts at 1 and lets it decay, which is the server's learning rate.

    Raises:
        ParameterError: α out of range.

    Source: Xie et al., SLSGD, ECML PKDD 2019, Algorithm 1 (option II).
    """

    card = Card("slsgd", "trimmed mean, moving average with the model", "Xie et al., SLSGD, ECML PKDD 2019")

    def __init__(self, num_malicious: int | None = None, alpha: float = 1.0) -> None:
        super().__init__(num_malicious)
        if not 0 < alpha <= 1:
            raise ParameterError(f"slsgd: alpha is {alpha}; use a number in (0, 1]")
        self.alpha = alpha

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """α times the trimmed mean."""
        return self.alpha * super().aggregate(round, weights)
