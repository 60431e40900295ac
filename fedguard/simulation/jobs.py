"""The work that a federation sends to workers: local training and evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ..contracts.attack import TrainView
from ..contracts.local_training import LocalTraining
from ..core.seeds import generator
from ..training.local import Trained, trained
from ..training.parameters import learned, with_statistics, wrong_and_loss
from .build import build_attack
from .client_data import evaluation_batches, training_data
from .keys import CellKey
from .setup import setup_of

_Array: TypeAlias = "np.ndarray[Any, Any]"
#: (cell, clients, round, (d,) start, (s,) statistics, attacking, (d,) the model before or None,
#: (clients, d) SCAFFOLD's corrections or None)
TrainJob: TypeAlias = (
    "tuple[CellKey, tuple[int, ...], int, _Array, _Array, bool, _Array | None, _Array | None]"
)
#: (cell, targeted, batch, (d,) parameters, (s,) statistics)
EvaluationJob: TypeAlias = "tuple[CellKey, bool, int, _Array, _Array]"


def train_job(job: TrainJob) -> tuple[_Array, _Array, _Array]:
    """Local training of clients, all attacking or none.

    Returns:
        (clients, d) updates, (clients, s) statistics, and (clients,) FedNova's steps, NaN if as planned.
    """
    key, clients, index, start, statistics, attacking, before, corrections = job
    cell, setup = key.cell, setup_of(key)
    params = torch.from_numpy(start.copy())
    model = with_statistics(setup.model, torch.from_numpy(statistics.copy()))
    training = setup.training.in_round(index, cell.rounds)
    training = dataclasses.replace(training, wbc=0.0) if attacking else training
    data = [training_data(key, client, attacking) for client in clients]
    draws = [generator(cell.seed, "batches", index, client) for client in clients]
    added = None if corrections is None else [torch.from_numpy(row.copy()) for row in corrections]
    if before is None:
        return _stacked(trained(model, params, data, training, draws, corrections=added), training)
    shapes = tuple(tuple(p.shape) for p in learned(setup.model).values())
    view = TrainView(index, params.clone(), torch.from_numpy(before.copy()), shapes)
    attack = build_attack(cell)
    found = [
        trained(model, params, [data[i]], training, [draws[i]], attack.adjust(view), added and [added[i]])[0]
        for i in range(len(clients))
    ]
    return _stacked(found, training)


def _stacked(clients: Sequence[Trained], training: LocalTraining) -> tuple[_Array, _Array, _Array]:
    updates, statistics, steps = zip(*clients, strict=True)
    ways = np.array([np.nan if count is None else training.way(count) for count in steps])
    return torch.stack(updates).numpy(), torch.stack(statistics).numpy(), ways


def evaluate_batch(job: EvaluationJob) -> tuple[float, float]:
    """One batch of the test set → the number of wrong predictions, and the summed loss."""
    key, targeted, k, params, statistics = job
    setup = setup_of(key)
    model = with_statistics(setup.model, torch.from_numpy(statistics.copy()))
    batch = evaluation_batches(key, targeted)[k]
    return wrong_and_loss(model, torch.from_numpy(params.copy()), batch, setup.task)
