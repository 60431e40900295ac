"""Coordinate-wise trimmed mean."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ._middle import MiddleMean


class TrimmedMean(MiddleMean):
    """Per coordinate, the mean without the β largest and the β smallest values.

    Weights only decide who takes part; the order statistic ignores their size.

    Args:
        num_malicious: β, number of values cut at each end; needs n > 2β. The papers set β to the assumed
            number of malicious clients. None cuts ⌊(n − 1)/2⌋, as many as possible, which gives the median.

    Source: Yin et al., ICML 2018, Definition 2; β = c as in Fang et al. 2020, Table 1.
    """

    card = Card(
        "trimmed_mean",
        "coordinate-wise mean without the largest and smallest values",
        "Yin et al., Byzantine-robust distributed learning, ICML 2018",
    )

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """2β + 1."""
        return 2 * (self.num_malicious or 0) + 1

    def cut(self, n: int) -> int:
        """β."""
        return (n - 1) // 2 if self.num_malicious is None else self.num_malicious

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Return the trimmed mean of every coordinate."""
        return self.middle(round)
