"""Union: reject every client that ERR or LFR rejects."""

from __future__ import annotations

from types import MappingProxyType

import numpy as np

from fedguard.contracts.card import Card
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores

from ._impact import LeaveOneOut, count, impact_ranks, impacts


class Union(LeaveOneOut):
    """s_i = max(rank of the error rate impact, rank of the loss impact) / (n − 1), ranks from 0 to n − 1.

    Every client that ERR or LFR removes is a suspect, that is every client with a rank of at least n − c in
    one of the two. Equal impacts are ranked by client id, as in ERR and LFR.

    Args:
        num_malicious: c of both; None assumes ⌊(n − 1)/2⌋, the most that an honest majority allows. Up to 2c
            clients are removed.

    Raises:
        TooFewClientsError: the aggregation rule is not defined for n − 1 clients.

    Source: Fang et al., USENIX Security 2020, §5.
    """

    card = Card(
        "union",
        "what the client adds to the validation error rate or loss",
        "Fang et al., Local model poisoning attacks, USENIX Security 2020",
    )
    tasks = frozenset({"classification", "multilabel"})
    exempt = MappingProxyType(
        {"equal updates": "equal impacts are ranked by client id, so that each rule removes exactly c"}
    )

    def score(self, round: Round) -> Scores:
        """Score by the worse of the two ranks."""
        worst = np.max([impact_ranks(round, impact) for impact in impacts(round, "union")], axis=0)
        c = count(round.n, self.num_malicious)
        return Scores(
            worst / max(round.n - 1, 1),
            worst >= round.n - c,
            f"among the {c} largest error rate impacts or the {c} largest loss impacts",
        )
