"""FLTrust as a detector: clients that move away from the server's own update."""

from __future__ import annotations

import numpy as np

from fedguard.aggregators._trust import NEEDED, root_update, trust_scores
from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.ties import above, tolerance


class FLTrust(Detector):
    """s_i = 1 − cos(u_i, g_0), g_0 the server's own update on its root data; a suspect if the cosine is ≤ 0.

    Its weights are the trust scores TS_i = max(0, cos(u_i, g_0)). The paper's method is the aggregator
    ``fltrust``, which also rescales every update to the length of g_0; the policy ``reweight`` on this
    detector weights without rescaling. g_0 is trained as clients train. If no client is trusted, all are
    suspects and the global model stays as it is.

    Source: Cao et al., FLTrust, NDSS 2021, §IV.
    """

    card = Card(
        "fltrust",
        "angle to the server's own update on root data",
        "Cao et al., FLTrust, NDSS 2021",
    )
    plant = "backwards"  # noise is at right angles to the server's update, and so are honest updates
    needs = NEEDED
    gives_weights = True

    def score(self, round: Round) -> Scores:
        """Score by the angle to the server's update."""
        cosines, _ = trust_scores(round.updates, root_update(round))
        return Scores(
            1 - cosines,
            ~above(cosines, 0.0, tolerance(round.n, round.updates.d), scale=1.0),
            "its update does not point in the direction of the server's own",
            weights=np.clip(cosines, 0, 1),
        )
