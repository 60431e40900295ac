"""Observers: notified of every decided round. They cannot change it, and their errors do not affect it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .outcome import Outcome
    from .round import Round

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Anything that follows the rounds of a guard: an event stream, metrics, a recording.

    It may also have ``refused(round, error)``, called if the guard raised an error instead of deciding.
    """

    def observe(self, round: Round, outcome: Outcome) -> None:
        """Called after a round is decided and the guard's state is committed."""


def notify(observers: Iterable[Observer], round: Round, outcome: Outcome) -> None:
    """Notify every observer; log a warning if one fails."""
    for observer in observers:
        try:
            observer.observe(round, outcome)
        except Exception:
            log.warning("observer %s failed in round %d", type(observer).__name__, round.index, exc_info=True)


def notify_refused(observers: Iterable[Observer], round: Round, error: Exception) -> None:
    """Notify every observer that has ``refused`` of an undecided round; log a warning if one fails."""
    for observer in observers:
        refused = getattr(observer, "refused", None)
        try:
            if refused is not None:
                refused(round, error)
        except Exception:
            log.warning("observer %s failed in round %d", type(observer).__name__, round.index, exc_info=True)
