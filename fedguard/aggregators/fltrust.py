"""FLTrust's aggregation: updates rescaled to the server's own norm, weighted by trust."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ._trust import NEEDED, root_update, trust_scores
from .mean import weighted_mean


class FLTrust(Aggregator):
    """Σ_i a_i TS_i (‖g_0‖ / ‖u_i‖) u_i / Σ_i a_i TS_i with TS_i = max(0, cos(u_i, g_0)).

    g_0 is the server's own update, trained on its root data with the clients' settings; a_i is the policy's
    weight. If no client is trusted, the global model stays as it is.

    Source: Cao et al., FLTrust, NDSS 2021, Algorithm 2.
    """

    card = Card(
        "fltrust",
        "mean weighted by agreement with the server's own update",
        "Cao et al., FLTrust, NDSS 2021",
    )
    exempt = MappingProxyType({"equal updates come out as they are": "it rescales them"})
    needs = NEEDED

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Rescale and average the updates of trusted clients."""
        cosines, length = trust_scores(round.updates, root_update(round))
        trust = weights * np.clip(cosines, 0, None)
        if not trust.any():
            return torch.zeros(round.updates.d, device=round.updates.device)
        trust = trust / trust.sum()
        norms = round.updates.norms.cpu().numpy()
        share = np.divide(trust, norms, out=np.zeros_like(trust), where=trust > 0)
        return (length * float(share.sum()) * weighted_mean(round, share).double()).float()
