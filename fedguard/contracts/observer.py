"""Observers: told of every round once it is decided; they can change nothing and break nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from .outcome import Outcome
    from .round import Round

log = logging.getLogger(__name__)


class Observer(Protocol):
    """Anything that wants to be told: an event stream, metrics, a recording."""

    def observe(self, round: Round, outcome: Outcome) -> None:
        """A round was decided, and everything that the guard remembers of it is in place."""


def notify(observers: Iterable[Observer], round: Round, outcome: Outcome) -> None:
    """Tell every observer; one that fails is a warning in the log, the round stands."""
    for observer in observers:
        try:
            observer.observe(round, outcome)
        except Exception:
            log.warning("observer %s failed in round %d", type(observer).__name__, round.index, exc_info=True)
