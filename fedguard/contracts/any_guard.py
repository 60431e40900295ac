"""The shape of a guard, for the parts that it is made of: they stand below it and do not import it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from ..ledger.memory import Ledger
    from .aggregator import Aggregator
    from .detector import Detector
    from .outcome import Outcome
    from .policy import Policy
    from .round import Round
    from .stage import Stage


class AnyGuard(Protocol):
    """As much of :class:`fedguard.Guard` as its parts use."""

    detectors: dict[str, Detector]
    policy: Policy
    aggregator: Aggregator
    ledger: Ledger

    def aggregation(self) -> list[Stage | Aggregator]:
        """The stages and the aggregator, in order."""

    def process(self, round: Round, repeat: bool = False) -> Outcome:
        """Judge a round and aggregate it."""
