"""Whom a recording condemns, and its updates applied again without theirs."""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..aggregators.mean import Mean
from ..contracts.aggregator import Aggregator
from ..core.errors import ParameterError, ResultsError, TooFewClientsError
from ..core.ids import ClientId
from ..core.params import nearest
from ..judging.claims import weighed
from ..training.server_optimizer import ServerOptimizer
from .content import Recorded
from .recording import Recording


@dataclass(frozen=True)
class Reapplied:
    """The model that the recorded updates give without those of some clients.

    Attributes:
        params: (d,) the model without them.
        before: (d,) the model that the recording ends at: the last round with everybody's updates.
        entered: the first recorded round in which one of them took part.
        deviation: max_t ‖moved_t − recorded_t‖ / ‖recorded_t‖ over the moves of the global model that are
            recorded from then on: how far the assumed rule is from what the server did. NaN if no move is.
    """

    params: Tensor
    before: Tensor
    entered: int
    deviation: float


def banned_in(recording: Recording) -> list[ClientId]:
    """The clients whose latest recorded verdict is a ban, in order of appearance.

    Raises:
        ResultsError: a round is damaged.
    """
    latest: dict[str, tuple[ClientId, bool]] = {}
    for recorded in recording:
        out = recorded.banned | recorded.barred
        for name, banned in zip(recorded.round.client_ids, out, strict=True):
            latest[str(name)] = name, bool(banned)
    return [name for name, banned in latest.values() if banned]


def known_among(recording: Recording, given: Collection[ClientId]) -> list[ClientId]:
    """The recorded ids of the given clients; 7 and "7" are the same client.

    Raises:
        ParameterError: one of them is not in any recorded round.
    """
    ids = {str(name): name for at in range(len(recording)) for name in recording.words(at)["client_ids"]}
    for name in given:
        if str(name) not in ids:
            raise ParameterError(f"client {name} is in no recorded round{nearest(str(name), ids)}")
    return list({str(name): ids[str(name)] for name in given}.values())


def entry_of(recording: Recording, clients: Collection[ClientId]) -> int:
    """The position of the first round in which one of the clients took part.

    Raises:
        ParameterError: none of them did.
    """
    wanted = {str(name) for name in clients}
    for position in range(len(recording)):
        if wanted & {str(name) for name in recording.words(position)["client_ids"]}:
            return position
    raise ParameterError("none of these clients is in a recorded round")


def applied_again(
    recording: Recording,
    clients: Collection[ClientId],
    aggregator: Aggregator | None = None,
    optimizer: ServerOptimizer | None = None,
) -> Reapplied:
    """θ ← step(θ, A({u_i : i not removed}, recorded weights)), from the model of the round they entered on.

    An approximation: the other clients' updates were trained on a model with the removed clients in it, and
    are applied as they were recorded. Rounds that were not recorded keep their effect.

    Args:
        recording: the rounds; with all layers and the global model.
        clients: whom to leave out.
        aggregator: the rule A; the weighted mean by default.
        optimizer: how the server moves; by the aggregate itself if absent.

    Raises:
        ParameterError: none of the clients is in a recorded round.
        ResultsError: a round is damaged, holds no global model, or leaves too few clients for the rule.
    """
    rule, everybody = aggregator or Mean(), optimizer or ServerOptimizer()
    without, start = everybody, entry_of(recording, clients)
    removed = {str(name) for name in clients}
    params = before = after = torch.zeros(0)
    entered, last, deviation = 0, -1, float("nan")
    for position in range(len(recording)):
        recorded = recording.read(position)
        there = _global_model(recorded, recording)
        if position and there.shape != before.shape:
            raise ResultsError(
                f"{recording.folder}: round {recorded.round.index} has {len(there)} parameters, the round "
                f"before it {len(before)}"
            )
        if position > start:
            if recorded.round.index == last + 1:
                deviation = np.fmax(deviation, _distance(after - before, there - before))
            else:
                params = params + (there - after)  # what the rounds that are not recorded did
        if position == start:
            params, without, entered = there, copy.deepcopy(everybody), recorded.round.index
        before, last = there, recorded.round.index
        after = everybody.step(there, _aggregate(rule, recorded, set()))
        if position >= start:
            params = without.step(params, _aggregate(rule, recorded, removed))
    return Reapplied(params, after, entered, float(deviation))


def _global_model(recorded: Recorded, recording: Recording) -> Tensor:
    if recording.index.keep is not None:
        raise ResultsError(
            f"{recording.folder} holds only the layers {recording.index.keep!r}: no model can be made of them"
        )
    if recorded.round.global_params is None:
        raise ResultsError(
            f"{recording.folder}: round {recorded.round.index} holds no global model; give the rounds that "
            "you record `global_params`"
        )
    return recorded.round.global_params


def _aggregate(rule: Aggregator, recorded: Recorded, removed: set[str]) -> Tensor:
    """The round's aggregate with the recorded weights, 0 for the removed clients."""
    kept = [str(name) not in removed for name in recorded.round.client_ids]
    try:
        return rule(weighed(recorded.round, recorded.counted), np.where(kept, recorded.weights, 0.0))
    except TooFewClientsError as error:
        raise ResultsError(f"round {recorded.round.index}: {error}; use the rule mean") from None


def _distance(moved: Tensor, recorded: Tensor) -> float:
    """‖moved − recorded‖ / ‖recorded‖; 0 if both are zero."""
    size, off = float(recorded.double().norm()), float((moved - recorded).double().norm())
    return off / size if size else (0.0 if off == 0 else float("inf"))
