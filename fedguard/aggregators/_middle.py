"""What the median and the trimmed mean share: means of the middle values of every coordinate."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.round import Round, as_round
from ..geometry.order import check_with_means, middle_means


class MiddleMean(Aggregator):
    """Per coordinate, the mean without some of the largest and as many of the smallest values."""

    @abstractmethod
    def cut(self, n: int) -> int:
        """How many of n values to cut at each end."""

    def __call__(self, round: Round | Any, weights: Any = None) -> Tensor:
        """(d,) the aggregate; see :class:`Aggregator`. Reads the updates once, if all of them are usable."""
        round = as_round(round)
        if weights is None and round.n >= self.min_clients() and not any(round.faults):
            cut = self.cut(round.n)
            check_with_means(round.updates, cut, round.n - cut)
        return super().__call__(round, weights)

    def middle(self, round: Round) -> Tensor:
        """(d,) the mean of every coordinate's middle values, summed in float64."""
        cut = self.cut(round.n)
        return middle_means(round.updates, cut, round.n - cut)
