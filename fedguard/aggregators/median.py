"""Coordinate-wise median."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ._middle import MiddleMean


class Median(MiddleMean):
    """Per coordinate, the median over clients; the mean of the two middle values if n is even.

    Weights only decide who takes part; the order statistic ignores their size.

    Source: Yin et al., ICML 2018, Definition 1.
    """

    card = Card(
        "median", "coordinate-wise median", "Yin et al., Byzantine-robust distributed learning, ICML 2018"
    )

    def cut(self, n: int) -> int:
        """All but one or two."""
        return (n - 1) // 2

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Return the median of every coordinate."""
        return self.middle(round)
