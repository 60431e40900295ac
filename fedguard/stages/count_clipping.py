"""Count clipping: bound claimed sample counts by a multiple of their median."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.stage import Stage
from ..core.errors import ParameterError


class CountClipping(Stage):
    """n_i ← min(n_i, factor · median(n)) before the aggregator.

    Claimed sample counts cannot be verified, and the weighted mean relies on them: one client that claims
    10⁶ samples controls the model. With the bound, f of n clients have at most the share
    factor·f / (factor·f + n/2 − f), since at least n/2 − f of the others claim the median or more.

    Args:
        factor: the largest count, as a multiple of the round's median, ≥ 1; 1 makes all clients that claim
            the median or more equal.

    Raises:
        ParameterError: a factor below 1.

    Source: FedGuard.
    """

    card = Card("count_clipping", "bound claimed sample counts by a multiple of their median", "FedGuard")

    def __init__(self, factor: float = 3.0) -> None:
        if not 1 <= factor < float("inf"):
            raise ParameterError(f"count_clipping: factor is {factor}; use a finite number from 1")
        self.factor = factor

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Lower counts above the bound to it."""
        if round.num_examples is None:
            return round, weights
        claims = np.asarray(round.num_examples, dtype=np.float64)
        bounded = np.minimum(claims, self.factor * np.median(claims))
        return dataclasses.replace(round, num_examples=bounded), weights
