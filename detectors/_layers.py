"""Whole updates, or the part that belongs to the model's last layer."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor

from fedguard.contracts.round import Round
from fedguard.core.errors import NeedError
from fedguard.geometry.updates import Updates

from .foolsgold import last_layer

Part: TypeAlias = Literal["all", "last_layer"]


def of_part(round: Round, features: Part) -> tuple[Updates, Tensor | None]:
    """Updates and global model (None if the round has none), whole or the last layer only.

    Raises:
        NeedError: ``features`` is "last_layer" and the round has no model.
    """
    if features == "all":
        return round.updates, round.global_params
    if round.server is None or round.server.model is None:
        raise NeedError("features 'last_layer' need model: give the round a Server(model=…)")
    where = last_layer(round.server.model, round.updates.d)
    start = round.global_params
    return round.updates.between(where), None if start is None else start[where]
