"""The work that a federation sends to workers: local training and evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ..contracts.attack import TrainView
from ..core.seeds import generator
from ..training.local import Trained, trained
from ..training.parameters import learned, with_statistics, wrong_and_loss
from .build import build_attack
from .client_data import evaluation_batches, training_data
from .keys import CellKey
from .setup import setup_of

_Array: TypeAlias = "np.ndarray[Any, Any]"
#: (cell, clients, round, (d,) start, (s,) statistics, attacking, (d,) the model before or None)
TrainJob: TypeAlias = "tuple[CellKey, tuple[int, ...], int, _Array, _Array, bool, _Array | None]"
#: (cell, targeted, batch, (d,) parameters, (s,) statistics)
EvaluationJob: TypeAlias = "tuple[CellKey, bool, int, _Array, _Array]"


def train_job(job: TrainJob) -> tuple[_Array, _Array]:
    """Local training of clients, all attacking or none → (clients, d) updates, (clients, s) statistics."""
    key, clients, index, start, statistics, attacking, before = job
    cell, setup = key.cell, setup_of(key)
    params = torch.from_numpy(start.copy())
    model = with_statistics(setup.model, torch.from_numpy(statistics.copy()))
    training = dataclasses.replace(setup.training, wbc=0.0) if attacking else setup.training
    data = [training_data(key, client, attacking) for client in clients]
    draws = [generator(cell.seed, "batches", index, client) for client in clients]
    if before is None:
        return _stacked(trained(model, params, data, training, draws))
    shapes = tuple(tuple(p.shape) for p in learned(setup.model).values())
    view = TrainView(index, params.clone(), torch.from_numpy(before.copy()), shapes)
    attack = build_attack(cell)
    found = [
        trained(model, params, [own], training, [draw], attack.adjust(view))[0]
        for own, draw in zip(data, draws, strict=True)
    ]
    return _stacked(found)


def _stacked(clients: Sequence[Trained]) -> tuple[_Array, _Array]:
    updates, statistics = zip(*clients, strict=True)
    return torch.stack(updates).numpy(), torch.stack(statistics).numpy()


def evaluate_batch(job: EvaluationJob) -> tuple[int, float]:
    """One batch of the test set → the number of wrong predictions, and the summed loss."""
    key, targeted, k, params, statistics = job
    model = with_statistics(setup_of(key).model, torch.from_numpy(statistics.copy()))
    return wrong_and_loss(model, torch.from_numpy(params.copy()), evaluation_batches(key, targeted)[k])
