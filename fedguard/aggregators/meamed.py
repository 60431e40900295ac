"""Mean around the median."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ..geometry.blocks import joined, ordered, wide
from .bulyan import around_median


class MeaMed(Aggregator):
    """Per coordinate, the mean of the n − f values closest to the median.

    The median of an even number of values is the mean of the two middle ones. If values on both sides are
    equally far, the window of least total distance is taken. Weights only decide who takes part.

    Args:
        num_malicious: f; needs n > 2f. None takes ⌊(n − 1)/2⌋, the most there can be.

    Source: Xie, Koyejo & Gupta, Generalized Byzantine-tolerant SGD, 2018, Definition 9; ByzFL's Meamed.
    """

    card = Card(
        "meamed",
        "coordinate-wise mean of the values around the median",
        "Xie et al., Generalized Byzantine-tolerant SGD, 2018",
    )

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"meamed: num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """2f + 1."""
        return 2 * (self.num_malicious or 0) + 1

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Average around the median of every coordinate."""
        f = (round.n - 1) // 2 if self.num_malicious is None else self.num_malicious
        means = round.updates.map_blocks(lambda block: around_median(wide(ordered(block)), round.n - f))
        return joined(means).float()
