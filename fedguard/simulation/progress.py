"""A round of a federation while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..contracts.outcome import Outcome
from ..contracts.round import Round
from .participation import Call

#: The note of a round in which all clients are banned.
NOBODY = "every client is banned: the global model stays as it is"


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
    """

    index: int
    asked: list[int]
    attacking: set[int]
    outcome: Outcome | None
    seconds: dict[str, float]
    round: Round | None
    called: Call | None = None


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
