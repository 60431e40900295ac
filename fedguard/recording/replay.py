"""Play a recording back to a guard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..detector import available
from ..errors import NeedError
from ..guard import Guard, Outcome
from ..round import Round
from ..server import Server
from ..threads import single_thread
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
        NeedError: the guard needs what is neither recorded nor given.
        ResultsError: a round is damaged.
    """
    for recorded in recording:
        round = seen(recorded, server, banned)
        with single_thread():
            yield recorded, None if round is None else _processed(guard, round, recording.index.keep)


def seen(recorded: Recorded, server: Server | None = None, banned: bool = False) -> Round | None:
    """The recorded round as detectors saw it, with what the server has; None if they saw nobody."""
    round = recorded.round
    if server is not None:
        own = round.server
        if own is not None:
            server = dataclasses.replace(server, seed=own.seed, training=server.training or own.training)
        round = dataclasses.replace(round, server=server)
    if banned or not recorded.barred.any():
        return round
    left = np.flatnonzero(~recorded.barred)
    return round.take(left) if len(left) else None


def _processed(guard: Guard, round: Round, keep: str | None) -> Outcome:
    parts = [*guard.detectors.values(), *guard.aggregation()]
    for part in parts:
        needs = frozenset(getattr(part, "needs", ()))
        if keep is not None and "model" in needs:
            raise NeedError(f"{part.name} needs the whole model, but only layers {keep!r} were recorded")
        missing = sorted(needs - available(round))
        if missing:
            raise NeedError(
                f"{part.name} needs {', '.join(missing)}, which the recording does not hold: give it"
            )
    return guard.process(round)
