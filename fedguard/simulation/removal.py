"""A recorded simulation, run again without some of its clients."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor

from ..contracts.server import map_in_order
from ..core.devices import on_cpu
from ..core.errors import ParameterError, ResultsError
from ..recording import Recording
from ..training.parameters import mean_of
from ..training.server_optimizer import ServerOptimizer
from .attackers import prepares
from .build import build_attack, build_guard
from .client_data import evaluation_batches
from .federation import Federation, Map
from .jobs import evaluate_batch
from .keys import CellKey
from .recorded import RecordedFederation, cell_of
from .settings import Cell
from .setup import setup_for

#: Who bans the removed clients, and why, in the ledger of the run that is repeated.
BY, WHY = "rollback", "removed: the run is repeated without it"


class WithoutClients(Federation):
    """The same federation, from a round on without some of its clients.

    They are banned in that round, so the server asks others in their place, as it does for banned clients.
    Under ids that they return with they are banned, too.

    Args:
        cell: the settings of the federation.
        removed: the numbers of the clients to leave out.
        entered: the round from which on they are absent.
        map: runs independent work.

    Raises:
        ParameterError: nobody would be left.
    """

    def __init__(self, cell: Cell, removed: Collection[int], entered: int, map: Map = map_in_order) -> None:
        super().__init__(cell, map)
        self.removed, self.entered = sorted(removed), entered
        if len(self.removed) == len(self.clients):
            raise ParameterError(f"all {cell.clients} clients are to be removed; nobody is left to train")

    def _let_attackers_return(self, index: int) -> None:
        super()._let_attackers_return(index)
        for client in self.removed if index >= self.entered else ():
            if not self.guard.banned([self.id_of(client)], index):
                self.guard.ledger.ban(self.id_of(client), index, None, WHY, BY)


def retrained(recording: Recording, removed: Collection[int], entered: int) -> Tensor:
    """(d,) the global model of the recorded run, repeated without some clients from a round on.

    Args:
        recording: of a simulation.
        removed: the numbers of the clients.
        entered: the round.

    Raises:
        ResultsError: the run is not the recorded one when it is repeated here.
        ParameterError: nobody would be left.
    """
    cell, last = _cell(recording), recording.index.rounds[len(recording) - 1].index
    if last >= cell.rounds:
        raise ResultsError(f"{recording.folder} holds round {last} of a run of {cell.rounds} rounds")
    first = recording.read(0).round
    check = Federation(cell).advance(first.index).round
    if check is None or not torch.equal(on_cpu(check.updates.matrix), first.updates.matrix):
        raise ResultsError(
            f"{recording.folder}: round {first.index} is not the recorded one when it is repeated here "
            "(other code, data, device or number format); remove the clients approximately"
        )
    federation = WithoutClients(cell, removed, entered)
    for index in range(last + 1):
        federation.advance(index)
    return federation.params


def final_model(recording: Recording) -> Tensor:
    """(d,) the global model after the last recorded round, by the recorded defense.

    Raises:
        ResultsError: the defense leads to other models than the recorded ones.
    """
    cell = _cell(recording)
    guard, federation = build_guard(cell), RecordedFederation(cell, recording=recording)
    optimizer = optimizer_of(cell)
    params = initial = setup_for(cell).initial
    for position in range(len(recording)):
        round = federation.advance(position).round
        recorded = recording.read(position).round
        if recorded.global_params is None or not torch.equal(recorded.global_params, params):
            raise ResultsError(
                f"{recording.folder}: the global model of round {recorded.index} is not what the recorded "
                "defense gives here; remove the clients approximately"
            )
        if round is not None:
            outcome = guard.process(round)
            params = optimizer.step(params, on_cpu(outcome.aggregate))
            if outcome.restart:
                params, optimizer = initial, optimizer_of(cell)
    return params


def optimizer_of(cell: Cell) -> ServerOptimizer:
    """How the server of a simulation moves its model."""
    held = {"validation", "root", "optimizer"}
    return ServerOptimizer(cell.server.optimizer, **cell.server.model_dump(exclude=held))


def measured(cell: Cell, params: Tensor) -> tuple[float, float]:
    """Accuracy and attack success of a (d,) global model on the simulation's test data; NaN if undefined.

    Success is undefined for an attack that prepares every round, too: its last trigger is not recorded.
    """
    key, none = CellKey.of(cell), np.zeros(0, dtype=np.float32)
    rates = []
    for targeted in (False, True):
        unknown = targeted and prepares(build_attack(cell))
        parts = [] if unknown else evaluation_batches(key, targeted)
        done = [evaluate_batch((key, targeted, k, params.numpy(), none)) for k in range(len(parts))]
        rates.append(1 - mean_of(done, sum(len(part.labels) for part in parts))[0])
    return rates[0], rates[1]


def _cell(recording: Recording) -> Cell:
    cell = cell_of(recording)
    if cell is None:
        raise ParameterError(
            f"{recording.folder} was not recorded in a simulation: there is no run to repeat"
        )
    return cell
