"""A round of a federation while it runs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..core.ids import ClientId
from ..guard import Guard
from .participation import Call
from .records import ClientRow

#: The note of a round in which all clients are banned.
NOBODY = "every client is banned: the global model stays as it is"

#: Where a record's numbers hold what a passive attack reconstructed.
LEAK = "leak"
#: Where they hold how good a generative model's samples are.
GENERATION = "generation"


@dataclass(frozen=True)
class Progress:
    """The state of a round before the new global model is measured.

    Attributes:
        index: the round.
        asked: the clients that sent an update, in order.
        attacking: those of them that attack.
        outcome: the guard's outcome; None if nobody sent anything.
        seconds: wall time by part.
        round: as the server received it.
        called: who was asked, dropped out or is late; None for a recording.
        leaked: measures of what a passive attack reconstructed; empty if none did.
    """

    index: int
    asked: list[int]
    attacking: set[int]
    outcome: Outcome | None
    seconds: dict[str, float]
    round: Round | None
    called: Call | None = None
    leaked: Mapping[str, float] = field(default_factory=dict)


def reported(
    outcome: Outcome | None, beside: Mapping[str, Mapping[str, float]]
) -> dict[str, dict[str, float]]:
    """The numbers to record: those of an outcome's detectors, and those of the federation itself, if any.

    Args:
        outcome: the guard's; None if nobody sent anything.
        beside: :data:`LEAK`, :data:`GENERATION` → their numbers; others are left out.
    """
    own = {name: dict(values) for name, values in outcome.info.items()} if outcome else {}
    return own | {name: dict(beside[name]) for name in (LEAK, GENERATION) if beside.get(name)}


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two vectors of the same size hold the same numbers, NaN included."""
    return torch.equal(one.view(torch.int32), other.view(torch.int32))


def is_finite(progress: Progress, params: Tensor, loss: float) -> bool:
    """Whether the run has not diverged: model, loss and some client's honest update are finite."""
    received = progress.round
    if not (params.isfinite().all() and math.isfinite(loss)):
        return False
    if progress.outcome is None or received is None:
        return True
    honest = np.array([client not in progress.attacking for client in progress.asked], dtype=bool)
    return bool(received.usable[honest].any() if honest.any() else received.usable.any())


def client_row(guard: Guard, who: tuple[int, ClientId, bool], i: int | None, progress: Progress) -> ClientRow:
    """The row of one client in the record of a round.

    Args:
        guard: whose ledger knows the client.
        who: its number, its current id, and whether it is malicious.
        i: its position in the round; None if it sent nothing.
        progress: the round.
    """
    (client, name, malicious), outcome = who, progress.outcome
    facts = (client, str(name), malicious, client in progress.attacking, i is not None)
    if i is None or outcome is None:
        record = guard.ledger[name]
        banned = guard.ledger.is_banned(name, progress.index)
        excuse = progress.called.excuse(client) if progress.called else ""
        reason = f"banned since round {record.banned_since}" if banned else excuse or "not asked"
        return ClientRow(*facts, float("nan"), False, 0.0, banned, reason)
    return ClientRow(
        *facts,
        float(outcome.scores[i]),
        bool(outcome.suspects[i]),
        float(outcome.weights[i]),
        bool(outcome.banned[i]),
        outcome.reasons[i],
    )
