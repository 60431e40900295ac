"""FedNova: average updates per local step, so that clients with more steps do not dominate."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from .mean import weighted_mean

LARGEST = torch.finfo(torch.float32).max


class FedNova(Aggregator):
    """τ_eff Σ_i p_i u_i / τ_i with p_i ∝ policy weight × claimed sample count and τ_eff = Σ_i p_i τ_i.

    τ_i is what the client claims as ``Round.num_steps``, the paper's ‖a_i‖₁: the number of local steps for
    plain SGD. With equal τ_i it is FedAvg.

    Source: Wang et al., NeurIPS 2020, equation 8.
    """

    card = Card(
        "fednova",
        "mean of the updates per local step",
        "Wang et al., Tackling Objective Inconsistency (FedNova), NeurIPS 2020",
    )

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Normalize, average, and rescale by the mean number of steps."""
        share = weights * (round.num_examples / round.num_examples.max())
        share = share / share.sum()
        steps = np.maximum(round.num_steps / round.num_steps.max(), np.finfo(np.float64).tiny)
        per_step = share / steps
        scale = float(share @ steps) * float(per_step.sum())
        # The aggregate stays finite even for absurd claims, which must not get the round refused.
        return (scale * weighted_mean(round, per_step).double()).clamp(-LARGEST, LARGEST).float()
