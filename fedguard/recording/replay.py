"""Replay a recording with a guard."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..contracts.server import Server
from ..core.errors import ResultsError, RoundError
from ..core.threads import single_thread
from ..guard import Guard
from ..training.parameters import fitting, learned
from .content import Recorded
from .recording import Recording


def replay(
    recording: Recording, guard: Guard, server: Server | None = None, banned: bool = False
) -> Iterator[tuple[Recorded, Outcome | None]]:
    """Let a guard process the rounds of a recording, one after the other.

    The guard sees what the recorded detectors saw: clients banned at the time are left out. Runs on one
    thread, as suites do, so the guard of a suite gives bit-identical scores.

    Args:
        recording: the recorded rounds.
        guard: the guard that judges them; it remembers, bans and aggregates as in a live federation.
        server: what recordings do not hold: model, validation and root data. The recorded seed is used.
        banned: whether the guard also sees clients that were banned when recorded.

    Yields:
        Each round with the guard's outcome, aligned with the clients of :func:`seen`; None without clients.

    Raises:
        FedGuardError: as :meth:`Guard.process`, for example if the guard needs data that are neither
            recorded nor given.
        ResultsError: a round is damaged.
    """
    for recorded in recording:
        round = seen(recorded, server, banned)
        with single_thread():
            yield recorded, None if round is None else guard.process(round)


def seen(recorded: Recorded, server: Server | None = None, banned: bool = False) -> Round | None:
    """Return the recorded round as detectors saw it, with the server's parts; None if they saw no client.

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
    """Return the given server with the recorded seed, and the recorded parts that it lacks."""
    if server.model is not None:
        try:
            fitting(server.model, round.updates.d)
        except RoundError:
            size = sum(p.numel() for p in learned(server.model).values())
            raise ResultsError(
                f"the model has {size} parameters, the recorded updates {round.updates.d}: it is another "
                "model, or only some layers were recorded"
            ) from None
    own = round.server
    if own is None:
        return server
    missing = {
        name: getattr(own, name)
        for name in ("input_shape", "num_classes", "training")
        if getattr(server, name) is None
    }
    return dataclasses.replace(server, seed=own.seed, **missing)
