"""Observe: report, change nothing."""

from __future__ import annotations

import numpy as np

from ..contracts.card import Card
from ..contracts.decision import Decision, PolicyInput
from ..contracts.policy import Policy


class Observe(Policy):
    """Weight 1 for all clients; suspects are only reported.

    Args:
        rule: how scores become suspects, see :mod:`fedguard.contracts.rules`.
        vote: how several detectors agree on a suspect, see :class:`fedguard.contracts.policy.Policy`.
    """

    card = Card("observe", "report suspects, let all clients contribute", "FedGuard")

    def decide(self, case: PolicyInput) -> Decision:
        """Return weight 1 for all clients."""
        suspects, phrases = self.suspects(case)
        reasons = tuple(f"observed: {p}" for p in phrases)
        return Decision(np.ones(len(reasons)), suspects, reasons)
