"""Exclude: suspects do not contribute in this round."""

from __future__ import annotations

from ..contracts.card import Card
from ..contracts.decision import Decision, PolicyInput
from ..contracts.policy import Policy, against_most


class Exclude(Policy):
    """Weight 0 for suspects, 1 for all others; every round is judged on its own.

    If more than half are suspects, the outcome's note says so. Rules that select a few clients, such as Krum,
    do that by design; any other verdict against most clients is doubtful.

    Args:
        rule: how scores become suspects, see :mod:`fedguard.contracts.rules`.
        vote: how several detectors agree on a suspect, see :class:`fedguard.contracts.policy.Policy`.
    """

    card = Card("exclude", "leave suspects out of this round", "FedGuard")

    def decide(self, case: PolicyInput) -> Decision:
        """Exclude the suspects."""
        suspects, phrases = self.suspects(case)
        reasons = tuple(
            f"excluded: {p}" if s else f"accepted: {p}" for s, p in zip(suspects, phrases, strict=True)
        )
        most = against_most(suspects)
        note = (
            most
            and f"{most}, and excluded by {', '.join(case.scores)}: few are selected by design, or in error"
        )
        return Decision((~suspects).astype(float), suspects, reasons, note=note)
