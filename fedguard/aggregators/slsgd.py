"""SLSGD: a moving average of the model and the trimmed mean."""

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
        num_malicious: b, number of values cut at each end; needs n > 2b. None cuts as many as possible.
        alpha: α in (0, 1], the server's learning rate; in the paper it starts at 1 and decays.

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
        """Return α times the trimmed mean."""
        return self.alpha * super().aggregate(round, weights)
