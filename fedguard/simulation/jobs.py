"""The work that a federation sends to workers: local training and evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ..contracts.attack import TrainView
from ..core.devices import on_cpu, on_device
from ..core.seeds import generator
from ..training.local import Trained, trained
from ..training.parameters import with_statistics, wrong_and_loss
from .build import build_attack
from .keys import CellKey
from .placement import cell_device, evaluation_batches_on, model_on, training_data_on
from .setup import setup_of

_Array: TypeAlias = "np.ndarray[Any, Any]"
#: (cell, clients, round, (d,) start, (s,) statistics, attacking, (d,) the model before or None)
TrainJob: TypeAlias = "tuple[CellKey, tuple[int, ...], int, _Array, _Array, bool, _Array | None]"
#: (cell, targeted, batch, (d,) parameters, (s,) statistics)
EvaluationJob: TypeAlias = "tuple[CellKey, bool, int, _Array, _Array]"


def train_job(job: TrainJob) -> tuple[_Array, _Array]:
    """Local training of clients, all attacking or none → (clients, d) updates, (clients, s) statistics.

    Updates come back from the cell's device in one transfer.
    """
    with cell_device(job[0]) as device:
        return _trained_on(device, job)


def _trained_on(device: torch.device, job: TrainJob) -> tuple[_Array, _Array]:
    key, clients, index, start, statistics, attacking, before = job
    cell, setup = key.cell, setup_of(key)
    params = on_device(torch.from_numpy(start.copy()), device)
    model = with_statistics(model_on(key, device), torch.from_numpy(statistics.copy()))
    training = dataclasses.replace(setup.training, wbc=0.0) if attacking else setup.training
    data = [training_data_on(key, client, attacking, device) for client in clients]
    draws = [generator(cell.seed, "batches", index, client) for client in clients]
    if before is None:
        return _stacked(trained(model, params, data, training, draws))
    shapes = tuple(tuple(p.shape) for p in setup.model.parameters())
    back = on_device(torch.from_numpy(before.copy()), device)
    view = TrainView(index, params.clone(), back, shapes)
    attack = build_attack(cell)
    found = [
        trained(model, params, [own], training, [draw], attack.adjust(view))[0]
        for own, draw in zip(data, draws, strict=True)
    ]
    return _stacked(found)


def _stacked(clients: Sequence[Trained]) -> tuple[_Array, _Array]:
    updates, statistics = zip(*clients, strict=True)
    return on_cpu(torch.stack(updates)).numpy(), on_cpu(torch.stack(statistics)).numpy()


def evaluate_batch(job: EvaluationJob) -> tuple[int, float]:
    """One batch of the test set → the number of wrong predictions, and the summed loss."""
    key, targeted, k, params, statistics = job
    with cell_device(key) as device:
        model = with_statistics(model_on(key, device), torch.from_numpy(statistics.copy()))
        data = evaluation_batches_on(key, targeted, device)[k]
        return wrong_and_loss(model, torch.from_numpy(params.copy()), data)
