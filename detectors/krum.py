"""Krum, m-Krum and Multi-Krum as a detector."""

from __future__ import annotations

from typing import Literal

import numpy as np

from fedguard.aggregators.krum import check_proof, krum_scores, multi_krum, tolerated
from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError
from fedguard.core.ties import levels, tolerance


class Krum(Detector):
    """s_i = Σ ‖u_i − u_j‖² over the n − f − 2 nearest other clients; clients not selected are suspects.

    n is the number of clients in the round, not in the population. The proof needs n ≥ 2f + 3. A smaller
    round logs a warning once, except under "multi_krum", which needs 2f + 3 clients.

    Args:
        num_malicious: f; None assumes ⌊(n − 3)/2⌋, the most that the proof allows.
        select: "krum" keeps the lowest score only; "m_krum" keeps the m lowest at once (FedSecurity);
            "multi_krum" repeats Krum on the remaining clients.
        m: how many to keep; None means n − f for m_krum and n − 2f − 2 for multi_krum, as in the code
            released with NDSS 2021. The paper's text, n − c > 2f + 2 for c selected clients, keeps one fewer:
            m = n − 2f − 3.

    Source: Blanchard et al., NeurIPS 2017, §4; Shejwalkar & Houmansadr, NDSS 2021, §II-C2.

    Example:
        >>> from fedguard import make_detector
        >>> scores = make_detector("krum", num_malicious=1)([[0.0], [0.1], [0.2], [0.3], [9.0]])
        >>> scores.values.round(2).tolist()
        [0.05, 0.02, 0.02, 0.05, 153.13]
        >>> scores.suspects.tolist()
        [True, False, True, True, True]
    """

    card = Card(
        "krum",
        "sum of squared distances to the nearest other clients",
        "Blanchard et al., Krum, NeurIPS 2017",
    )

    def __init__(
        self,
        num_malicious: int | None = None,
        select: Literal["krum", "m_krum", "multi_krum"] = "krum",
        m: int | None = None,
    ) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"krum: num_malicious is {num_malicious}; it cannot be negative")
        if select not in ("krum", "m_krum", "multi_krum"):
            raise ParameterError(f"krum: select is {select!r}; use 'krum', 'm_krum' or 'multi_krum'")
        if m is not None and (m < 1 or select == "krum"):
            raise ParameterError(f"krum: m is {m}; it is at least 1 and goes with m_krum and multi_krum only")
        self.num_malicious = num_malicious
        self.select = select
        self.m = m

    def min_clients(self) -> int:
        """f + 3, so that every client has a neighbor; 2f + 3 for multi_krum, so that it selects a client."""
        f = self.num_malicious or 0
        return 2 * f + 3 if self.select == "multi_krum" else f + 3

    def score(self, round: Round) -> Scores:
        """Score by distance to the neighbors."""
        f = tolerated(round.n) if self.num_malicious is None else self.num_malicious
        distances = round.updates.sq_distances
        values = krum_scores(distances, f).cpu().numpy()
        check_proof(round.n, f)
        slack = tolerance(round.n, round.updates.d)
        if self.select == "multi_krum":
            kept = multi_krum(distances, f, self.m, slack)
            why = f"not among the {len(kept)} that Multi-Krum selects"
        else:
            count = 1 if self.select == "krum" else min(self.m or round.n - f, round.n)
            kept = list(np.argsort(levels(values, slack), kind="stable")[:count])
            why = f"not among the {count} lowest scores"
        suspects = np.ones(round.n, dtype=bool)
        suspects[kept] = False
        return Scores(values, suspects, why)
