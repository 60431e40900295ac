"""The work that a federation sends to workers: local training and evaluation."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import torch

from ..contracts.attack import TrainView
from ..contracts.local_training import LocalTraining
from ..core.devices import on_cpu, on_device
from ..core.seeds import generator
from ..geometry.blocks import empty_matrix
from ..training.local import Trained, trained
from ..training.parameters import learned, with_statistics, wrong_and_loss
from .attackers import train_attacker
from .build import build_attack
from .keys import CellKey
from .participation import LocalWork
from .placement import cell_device, evaluation_batches_on, model_on, training_data_on
from .setup import Setup, setup_of

_Array: TypeAlias = "np.ndarray[Any, Any]"
#: (cell, clients, round, (d,) start, (s,) statistics, attacking, (d,) the model before or None,
#: (clients, d) SCAFFOLD's corrections or None, the attack's state or None)
TrainJob: TypeAlias = (
    "tuple[CellKey, tuple[int, ...], int, _Array, _Array, bool, _Array | None, _Array | None, bytes | None]"
)
#: (cell, targeted, batch, (d,) parameters, (s,) statistics)
EvaluationJob: TypeAlias = "tuple[CellKey, bool, int, _Array, _Array]"


def train_job(job: TrainJob) -> tuple[_Array, _Array, _Array]:
    """Local training of clients, all attacking or none.

    Returns:
        (clients, d) updates, (clients, s) statistics, and (clients,) FedNova's steps, NaN if as planned.
    """
    with cell_device(job[0]) as device:
        return _trained_on(device, job)


def _trained_on(device: torch.device, job: TrainJob) -> tuple[_Array, _Array, _Array]:
    """Updates come back from the cell's device in one transfer."""
    key, clients, index, start, statistics, attacking, before, corrections, state = job
    cell, setup = key.cell, setup_of(key)
    params = on_device(torch.from_numpy(start.copy()), device)
    model = with_statistics(model_on(key, device), torch.from_numpy(statistics.copy()))
    training = setup.training.in_round(index, cell.rounds)
    if attacking:
        training = build_attack(cell).local_training(dataclasses.replace(training, wbc=0.0))
    if attacking and state is not None:
        own = torch.from_numpy(statistics.copy())
        change = None if before is None else _train_view(setup, index, params, before, device)
        asked = (key, index, params, own, training, state, change, device)
        return _stacked([train_attacker(client, *asked) for client in clients], training)
    data = [training_data_on(key, client, attacking, device) for client in clients]
    draws = [generator(cell.seed, "batches", index, client) for client in clients]
    added = None
    if corrections is not None:
        added = [on_device(torch.from_numpy(row.copy()), device) for row in corrections]
    if before is None:
        return _stacked(trained(model, params, data, training, draws, corrections=added), training)
    view = _train_view(setup, index, params, before, device)
    attack = build_attack(cell)
    found = [
        trained(model, params, [data[i]], training, [draws[i]], attack.adjust(view), added and [added[i]])[0]
        for i in range(len(clients))
    ]
    return _stacked(found, training)


def _train_view(
    setup: Setup, index: int, params: torch.Tensor, before: _Array, device: torch.device
) -> TrainView:
    shapes = tuple(tuple(p.shape) for p in learned(setup.model).values())
    return TrainView(index, params.clone(), on_device(torch.from_numpy(before.copy()), device), shapes)


def worked(
    asked: list[int],
    jobs: Sequence[TrainJob],
    results: Sequence[tuple[_Array, _Array, _Array]],
    sizes: tuple[int, int],
    planned: _Array,
) -> LocalWork:
    """The clients' rows, gathered from the results of the jobs.

    Args:
        asked: the clients, in order.
        jobs: who trained in which job.
        results: of :func:`train_job`, one per job.
        sizes: d and s.
        planned: (n,) steps; a client that stopped early has its own.
    """
    updates, own = empty_matrix(len(asked), sizes[0]), torch.empty(len(asked), sizes[1])
    steps, place = planned.copy(), {client: i for i, client in enumerate(asked)}
    for job, (moved, seen, ways) in zip(jobs, results, strict=True):
        rows = [place[client] for client in job[1]]
        for row, update in zip(rows, moved, strict=True):
            updates.numpy()[row] = update
        own[rows] = torch.from_numpy(seen)
        steps[rows] = np.where(np.isnan(ways), steps[rows], ways)
    return LocalWork(asked, updates, own, steps)


def _stacked(clients: Sequence[Trained], training: LocalTraining) -> tuple[_Array, _Array, _Array]:
    updates, statistics, steps = zip(*clients, strict=True)
    ways = np.array([np.nan if count is None else training.way(count) for count in steps])
    return _rows(updates), _rows(statistics), ways


def _rows(vectors: Sequence[torch.Tensor]) -> _Array:
    """(clients, size) on the CPU; a single client's vector is not copied."""
    return on_cpu(vectors[0][None] if len(vectors) == 1 else torch.stack(list(vectors))).numpy()


def evaluate_batch(job: EvaluationJob) -> tuple[float, float]:
    """One batch of the test set → the number of wrong predictions, and the summed loss."""
    key, targeted, k, params, statistics = job
    with cell_device(key) as device:
        model = with_statistics(model_on(key, device), torch.from_numpy(statistics.copy()))
        batch = evaluation_batches_on(key, targeted, device)[k]
        return wrong_and_loss(
            model, torch.from_numpy(params.copy()), batch, setup_of(key).task, whole=targeted
        )
