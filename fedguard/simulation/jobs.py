"""The work that a federation sends to workers: local training and evaluation."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from ..contracts.attack import TrainView
from ..contracts.local_training import LocalTraining
from ..core.devices import on_cpu, on_device
from ..core.seeds import generator
from ..training.local import Trained, trained
from ..training.parameters import learned, with_statistics, wrong_and_loss
from .attackers import train_attacker
from .build import build_attack
from .keys import CellKey
from .participation import LocalWork
from .placement import cell_device, evaluation_batches_on, model_on, training_data_on
from .setup import Setup, setup_of

_Array: TypeAlias = "np.ndarray[Any, Any]"
#: (cell, targeted, batch, (d,) parameters, (s,) statistics)
EvaluationJob: TypeAlias = "tuple[CellKey, bool, int, _Array, _Array]"


class TrainJob(NamedTuple):
    """Clients to train, all attacking or none.

    Attributes:
        key: the cell.
        clients: their numbers.
        round: its number.
        start: (d,) the global model.
        statistics: (s,) its statistics.
        attacking: whether they attack.
        before: (d,) the global model before, if the attack adjusts training.
        corrections: (clients, d) SCAFFOLD's.
        state: the attack's, if it trains by itself.
    """

    key: CellKey
    clients: tuple[int, ...]
    round: int
    start: _Array
    statistics: _Array
    attacking: bool
    before: _Array | None = None
    corrections: _Array | None = None
    state: bytes | None = None


def train_job(job: TrainJob) -> tuple[_Array, _Array, _Array]:
    """Local training of clients, all attacking or none.

    Returns:
        (clients, d) updates, (clients, s) statistics, and (clients,) FedNova's steps, NaN if as planned.
    """
    with cell_device(job.key) as device:
        return _trained_on(device, job)


def _trained_on(device: torch.device, job: TrainJob) -> tuple[_Array, _Array, _Array]:
    """Updates come back from the cell's device in one transfer."""
    key, clients, index, start, statistics, attacking, before, corrections, state = job
    cell, setup = key.cell, setup_of(key)
    params = _start(start, device)
    places = _Places(clients, params)
    model = with_statistics(model_on(key, device), torch.from_numpy(statistics.copy()))
    training = setup.training.in_round(index, cell.rounds)
    if attacking:
        training = attackers_training(key, index)
    if attacking and state is not None:
        own, params = torch.from_numpy(statistics.copy()), params.clone()  # not for the attack to change
        change = None if before is None else _train_view(setup, index, params, before, device)
        asked = (key, index, params, own, training, state, change, device)
        return places.results([train_attacker(client, *asked) for client in clients], training)
    data = [training_data_on(key, client, attacking, device) for client in clients]
    draws = [generator(cell.seed, "batches", index, client) for client in clients]
    added = None
    if corrections is not None:
        added = [on_device(torch.from_numpy(row.copy()), device) for row in corrections]
    if before is None:
        found = trained(model, params, data, training, draws, corrections=added, into=places.rows)
        return places.results(found, training)
    view = _train_view(setup, index, params, before, device)
    attack = build_attack(cell)
    found = [
        trained(
            model,
            params,
            [data[i]],
            training,
            [draws[i]],
            attack.adjust(view),
            added and [added[i]],
            [places.rows[i]],
        )[0]
        for i in range(len(clients))
    ]
    return places.results(found, training)


@functools.lru_cache(maxsize=16)
def attackers_training(key: CellKey, index: int) -> LocalTraining:
    """How attackers train in a round, built once for all of them."""
    training = setup_of(key).training.in_round(index, key.cell.rounds)
    return build_attack(key.cell).local_training(dataclasses.replace(training, wbc=0.0))


def _train_view(
    setup: Setup, index: int, params: torch.Tensor, before: _Array, device: torch.device
) -> TrainView:
    shapes = tuple(tuple(p.shape) for p in learned(setup.model).values())
    return TrainView(index, params.clone(), on_device(torch.from_numpy(before.copy()), device), shapes)


class Gathering:
    """The matrix of a round's updates, whose memory is reused once nothing refers to the previous matrix.

    Work that runs in this process puts updates there while they are in the cache; workers send theirs.
    """

    def __init__(self) -> None:
        self._memory: _Array = np.empty((0, 0), dtype=np.float32)
        self._unused = self._references()

    def _references(self) -> int:
        return sys.getrefcount(self._memory)

    def _matrix(self, rows: int, columns: int) -> torch.Tensor:
        if self._memory.shape != (rows, columns) or self._references() > self._unused:
            self._memory = np.empty((rows, columns), dtype=np.float32)
            self._unused = self._references()
        return torch.from_numpy(self._memory)

    def run(
        self, map: Any, asked: list[int], jobs: Sequence[TrainJob], sizes: tuple[int, int], planned: _Array
    ) -> LocalWork:
        """Train, and gather the clients' rows.

        Args:
            map: runs the jobs.
            asked: the clients, in order.
            jobs: who trains in which job.
            sizes: d and s.
            planned: (n,) steps; a client that stopped early has its own.
        """
        updates, own = self._matrix(len(asked), sizes[0]), torch.empty(len(asked), sizes[1])
        steps, place = planned.copy(), {client: i for i, client in enumerate(asked)}
        token = _HERE.set(_Here({client: updates.numpy()[i] for client, i in place.items()}, {}))
        try:
            results = map(train_job, jobs)
        finally:
            _HERE.reset(token)
        for job, (moved, seen, ways) in zip(jobs, results, strict=True):
            rows = [place[client] for client in job.clients]
            for row, update in zip(rows, moved, strict=False):  # none if they are there already
                updates.numpy()[row] = update
            own[rows] = torch.from_numpy(seen)
            steps[rows] = np.where(np.isnan(ways), steps[rows], ways)
        return LocalWork(asked, updates, own, steps)


class _Here(NamedTuple):
    """What pieces of one round's work share if they run in this process.

    Attributes:
        rows: client → its row of the matrix, where its update goes.
        starts: the global model by device.
    """

    rows: Mapping[int, _Array]
    starts: dict[torch.device, torch.Tensor]


_HERE: ContextVar[_Here | None] = ContextVar("here", default=None)


def _start(start: _Array, device: torch.device) -> torch.Tensor:
    """(d,) a copy of the global model on a device: one for all pieces of work in this process."""
    here = _HERE.get()
    starts = {} if here is None else here.starts
    if device not in starts:  # two threads may make one each; both get the first
        starts.setdefault(device, on_device(torch.from_numpy(start.copy()), device))
    return starts[device]


class _Places:
    """Where a piece of work puts its clients' updates: rows of the round's matrix, or of one to send.

    Args:
        clients: whose updates.
        params: (d,) the global model, on the device.
    """

    def __init__(self, clients: Sequence[int], params: torch.Tensor) -> None:
        here, self._matrix = _HERE.get(), None
        if here is not None and params.device.type == "cpu":
            self.rows = [torch.from_numpy(here.rows[client]) for client in clients]
        else:
            self._matrix = torch.empty(len(clients), len(params), device=params.device)
            self.rows = list(self._matrix)

    def results(self, found: Sequence[Trained], training: LocalTraining) -> tuple[_Array, _Array, _Array]:
        """What :func:`train_job` returns; no updates if they are in their rows already."""
        ways = np.array([np.nan if one.steps is None else training.way(one.steps) for one in found])
        own = on_cpu(torch.stack([one.statistics for one in found])).numpy()
        for row, one in zip(self.rows, found, strict=True):
            if one.update is not row:  # an attack's own training made it
                row.copy_(one.update)
        if self._matrix is None:
            return np.empty((0, len(self.rows[0])), dtype=np.float32), own, ways
        return on_cpu(self._matrix).numpy(), own, ways


def evaluate_batch(job: EvaluationJob) -> tuple[float, float]:
    """One batch of the test set → the number of wrong predictions, and the summed loss."""
    key, targeted, k, params, statistics = job
    with cell_device(key) as device:
        model = with_statistics(model_on(key, device), torch.from_numpy(statistics.copy()))
        batch = evaluation_batches_on(key, targeted, device)[k]
        return wrong_and_loss(
            model, torch.from_numpy(params.copy()), batch, setup_of(key).task, whole=targeted
        )
