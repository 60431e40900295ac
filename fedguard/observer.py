"""Observers: who is told of every round once it is decided, for example a recorder."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from .errors import FedGuardError

if TYPE_CHECKING:
    from .guard import Outcome
    from .round import Round

log = logging.getLogger("fedguard")


class Observer(Protocol):
    """Anything with ``observe``; a guard calls it after it has committed a round."""

    def observe(self, round: Round, outcome: Outcome) -> None:
        """Note a round and what was decided; neither may be changed."""


def notify(observers: Sequence[Observer], round: Round, outcome: Outcome) -> None:
    """Tell every observer; one that fails is named in the log and costs neither the round nor the others."""
    for observer in observers:
        try:
            observer.observe(round, outcome)
        except Exception as error:  # the round is decided already
            name, ours = type(observer).__name__, isinstance(error, FedGuardError)
            log.warning("observer %s failed in round %d: %s", name, round.index, error, exc_info=not ours)
