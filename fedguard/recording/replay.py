"""Play a recording back to a guard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..contracts.server import Server
from ..core.errors import ResultsError
from ..core.threads import single_thread
from ..guard import Guard
from .content import Recorded
from .recording import Recording


def replay(
    recording: Recording, guard: Guard, server: Server | None = None, banned: bool = False
) -> Iterator[tuple[Recorded, Outcome | None]]:
    """Let a guard process the rounds of a recording, one after the other.

    It sees what the detectors saw when it was recorded: clients whose ban was in force then are left out.
    Runs on one thread, as suites do; the guard of a suite gives the same scores to the last bit.

    Args:
        recording: where the rounds come from.
        guard: who judges them; it remembers, bans and aggregates as it would have.
        server: what recordings do not hold: model, validation and root data. The seed is the recorded one.
        banned: let the guard see clients that were banned when it was recorded.

    Yields:
        Each round and what the guard says about it, aligned with the clients of :func:`seen`; None if nobody
        is left.

    Raises:
        FedGuardError: as :meth:`Guard.process`: the guard needs what is neither recorded nor given, say.
        ResultsError: a round is damaged.
    """
    for recorded in recording:
        round = seen(recorded, server, banned)
        with single_thread():
            yield recorded, None if round is None else guard.process(round)


def seen(recorded: Recorded, server: Server | None = None, banned: bool = False) -> Round | None:
    """The recorded round as detectors saw it, with what the server has; None if they saw nobody.

    Raises:
        ResultsError: the server's model does not fit the recorded updates.
    """
    round = recorded.round
    if server is not None:
        round = dataclasses.replace(round, server=_completed(server, round))
    if banned or not recorded.barred.any():
        return round
    left = np.flatnonzero(~recorded.barred)
    return round.take(left) if len(left) else None


def _completed(server: Server, round: Round) -> Server:
    """A given server with the recorded seed, and with what else was recorded where it says nothing."""
    if server.model is not None:
        size = sum(p.numel() for p in server.model.parameters())
        if size != round.updates.d:
            raise ResultsError(
                f"the model has {size} parameters, the recorded updates {round.updates.d}: it is another "
                "model, or only some layers were recorded"
            )
    own = round.server
    if own is None:
        return server
    missing = {
        name: getattr(own, name)
        for name in ("input_shape", "num_classes", "training")
        if getattr(server, name) is None
    }
    return dataclasses.replace(server, seed=own.seed, **missing)
