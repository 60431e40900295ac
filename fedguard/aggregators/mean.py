"""Weighted mean: FedAvg."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError


class Mean(Aggregator):
    """Σ_i a_i u_i / Σ_i a_i, with a_i = policy weight × claimed sample count (FedAvg).

    Args:
        weighting: "examples" multiplies by the claimed sample counts, as FedAvg does; "uniform" does not,
            as in papers that average a selected set (Multi-Krum, DnC).

    Source: McMahan et al., AISTATS 2017, Algorithm 1.
    """

    card = Card("mean", "weighted mean of the updates (FedAvg)", "McMahan et al., FedAvg, AISTATS 2017")

    def __init__(self, weighting: Literal["examples", "uniform"] = "examples") -> None:
        if weighting not in ("examples", "uniform"):
            raise ParameterError(f"weighting is 'examples' or 'uniform', not {weighting!r}")
        self.weighting = weighting

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Return the weighted mean, summed in float64."""
        return weighted_mean(round, self.share(round.num_examples, weights))

    def share(self, num_examples: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return (n,) a_i, up to a common factor."""
        if self.weighting == "uniform":
            return weights
        claims: NDArray[np.float64] = (
            num_examples / num_examples.max()
        )  # absurd claims neither overflow nor underflow
        return weights * claims


def weighted_mean(round: Round, share: NDArray[np.float64]) -> Tensor:
    """(d,) Σ share_i u_i / Σ share_i in float64, returned as float32."""
    return round.updates.weighted_sum(share / share.sum()).float()
