"""Malicious clients whose attack prepares each round, or trains in its own way.

Both need the global model beside the data. What an attack prepares is part of its state, which travels to the
workers with the round's work.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ..contracts.attack import Attack, TrainView
from ..contracts.data import LabeledData
from ..contracts.local_training import LocalTraining
from ..contracts.local_view import LocalView
from ..core.devices import on_device
from ..core.errors import ParameterError
from ..core.seeds import generator
from ..core.state import pack, unpack
from ..core.threads import single_thread
from ..training.local import Trained, trained
from ..training.parameters import (
    batches,
    flat_parameters,
    flat_statistics,
    load_parameters,
    load_statistics,
    mean_of,
    wrong_and_loss,
)
from .build import build_attack
from .client_data import poison
from .keys import CellKey
from .placement import cell_device
from .setup import setup_of

_Array: TypeAlias = "np.ndarray[Any, Any]"


def innermost(attack: Attack) -> Attack:
    """The attack itself, or the one that it wraps."""
    inner = getattr(attack, "attack", None)
    return innermost(inner) if isinstance(inner, Attack) else attack


def prepares(attack: Attack) -> bool:
    """Whether an attack prepares every round."""
    return type(innermost(attack)).prepare is not Attack.prepare


def trains(attack: Attack) -> bool:
    """Whether an attack replaces local training."""
    return type(innermost(attack)).train is not Attack.train


def adjusts(attack: Attack) -> bool:
    """Whether an attack changes how its clients train, which then train one by one."""
    return type(attack).adjust is not Attack.adjust or trains(attack)


def refuse_prepared(attack: Attack, where: str) -> None:
    """Refuse an attack whose trigger changes over the rounds where that is not followed (ParameterError)."""
    if prepares(attack):
        raise ParameterError(f"{where} cannot run the attack {attack.name}, which prepares every round")


def prepare_round(
    attack: Attack, key: CellKey, clients: Sequence[int], index: int, start: _Array, statistics: _Array
) -> bytes | None:
    """Let the attack prepare on the first of its clients; returns its state if workers need it, else None."""
    if not prepares(attack):
        return pack(attack.state_dict()) if trains(attack) else None
    if clients:
        with cell_device(key) as device, single_thread():  # as in a worker: the same bits
            setup = setup_of(key)
            training = attack.local_training(setup.training.in_round(index, key.cell.rounds))
            params, own = torch.from_numpy(start.copy()), torch.from_numpy(statistics.copy())
            client, *others = sorted(clients)
            draw = generator(key.cell.seed, "attack round", index)
            view = _view(attack, key, client, index, params, own, training, draw, device)
            attack.prepare(
                dataclasses.replace(view, colluding=lambda: [setup.client_samples(other) for other in others])
            )
    return pack(attack.state_dict())


def train_attacker(
    client: int,
    key: CellKey,
    index: int,
    start: torch.Tensor,
    statistics: torch.Tensor,
    training: LocalTraining,
    state: bytes,
    train_view: TrainView | None,
    device: torch.device,
) -> Trained:
    """Train one malicious client, with the state that the attack has in this round."""
    attack = build_attack(key.cell)
    attack.load_state_dict(unpack(state))
    draw = generator(key.cell.seed, "batches", index, client)
    view = _view(attack, key, client, index, start, statistics, training, draw, device)
    if not trains(attack):
        adjust = attack.adjust(train_view) if train_view is not None else None
        return trained(view.model, start, [view.data], training, [draw], adjust)[0]
    attack.train(view)
    return Trained(flat_parameters(view.model).sub_(start), flat_statistics(view.model))


def own_trial(
    attack: Attack, key: CellKey, params: torch.Tensor, statistics: torch.Tensor
) -> tuple[float, float]:
    """Error rate and mean loss on the trial of an attack in its current state (NaN if it has none)."""
    setup = setup_of(key)
    trial = attack.trial(setup.dataset.test, setup.dataset.num_classes)
    if trial is None:
        return float("nan"), float("nan")
    data = LabeledData(setup.dataset.normalize(trial.samples.pixels), trial.target)
    with cell_device(key) as device, single_thread():
        model = copy.deepcopy(setup.model).to(device)
        load_statistics(model, statistics)
        parts = [wrong_and_loss(model, params, part) for part in batches(data)]
    return mean_of(parts, len(data.labels))


def _view(
    attack: Attack,
    key: CellKey,
    client: int,
    index: int,
    start: torch.Tensor,
    statistics: torch.Tensor,
    training: LocalTraining,
    draw: torch.Generator,
    device: torch.device,
) -> LocalView:
    setup = setup_of(key)
    model = copy.deepcopy(setup.model).to(device)
    load_parameters(model, start)
    if len(statistics):
        load_statistics(model, statistics)
    data = poison(key, client, attack)
    return LocalView(
        index=index,
        model=model,
        samples=setup.client_samples(client),
        data=LabeledData(*(on_device(part, device) for part in data)),
        normalize=setup.dataset.normalize,
        training=training,
        num_classes=setup.dataset.num_classes,
        generator=draw,
    )
