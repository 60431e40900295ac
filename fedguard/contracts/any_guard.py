"""The interface of a guard, for modules below it in the import order."""

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
    """What the guard's parts use of :class:`fedguard.Guard`."""

    detectors: dict[str, Detector]
    policy: Policy
    aggregator: Aggregator
    ledger: Ledger

    def aggregation(self) -> list[Stage | Aggregator]:
        """The stages and the aggregator, in order."""

    def process(self, round: Round, repeat: bool = False) -> Outcome:
        """Judge a round and aggregate it."""
