"""A federation whose rounds go through Flower: messages, a ClientApp, and a guarded strategy."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg
from numpy.typing import NDArray
from torch import Tensor, nn

from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..contracts.server import Server, map_in_order
from ..core.errors import ParameterError, WorkerError
from ..flower.progress import Judged, Open
from ..flower.replies import Reply
from ..flower.strategy import GuardedStrategy
from ..guard import Guard
from ..training.parameters import learned, statistics_of
from .attackers import prepares, trains
from .build import build_attack
from .federation import Federation, Map
from .jobs import TrainJob, train_job
from .keys import CellKey
from .participation import LocalWork
from .settings import Cell
from .setup import setup_of

#: Seconds to wait for Flower's nodes.
PATIENCE = 120.0


def federate_on(grid: Grid) -> Callable[[Cell, Map], Federation]:
    """Makes federations whose clients are the nodes of a grid."""
    return lambda cell, map: FlowerFederation(cell, grid, map)


class FlowerFederation(Federation):
    """The rounds of :class:`Federation`, with Flower between the clients and the guard.

    Clients are asked, train and reply as a Flower app; the adversary then replaces its clients' replies, as
    it sees the benign ones; a :class:`fedguard.flower.GuardedStrategy` judges and aggregates. A client sends
    its model, not its update, so the guard sees w_start + u − w_start: the update up to rounding.

    Args:
        cell: all settings.
        grid: Flower's grid, with at least as many nodes as the cell has clients.
        map: runs the server's own work: tests of the global model, methods that train on the server.

    Raises:
        WorkerError: the nodes do not show up.
        ParameterError: the cell has a setting that goes beyond Flower's messages.
    """

    def __init__(self, cell: Cell, grid: Grid, map: Map = map_in_order) -> None:
        _refuse_what_flower_lacks(cell)
        super().__init__(cell, map)
        self._grid = grid
        self._nodes = _nodes(grid, cell.clients)
        self._strategy = _Strategy(self.guard, self._server)
        self._replies: list[Message] = []
        self._arrays: ArrayRecord | None = None

    def _train(self, asked: list[int], attacking: set[int], index: int) -> LocalWork:
        """Ask the nodes of these clients, and read the updates and statistics off their models."""
        model = self.setup.model
        before = self.previous_params.numpy().tobytes() if self._adjusts else b""
        jobs = {
            self._nodes[client]: ConfigRecord(
                {
                    "cell": self._key.settings,
                    "client": client,
                    "round": index,
                    "attacking": client in attacking,
                    "before": before if client in attacking else b"",
                }
            )
            for client in asked
        }
        ids = {self._nodes[client]: self.id_of(client) for client in asked}
        sent = record_of(model, self.params, self.statistics)
        messages = self._strategy.ask(index, sent, jobs, ids, self._grid)
        replies = {reply.metadata.src_node_id: reply for reply in self._grid.send_and_receive(messages)}
        self._replies = [_checked(replies.get(self._nodes[client]), client) for client in asked]
        read = [_sent(model, reply) for reply in self._replies]
        updates = torch.stack([weights for weights, _ in read]) - self.params
        return LocalWork(asked, updates, torch.stack([own for _, own in read]), self._planned(asked, index))

    def _decide(self, received: Round) -> Outcome:
        """Hand the replies to the strategy, those of attackers as they were crafted."""
        sent = self.params + received.updates.matrix.cpu()
        mine = zip(self._replies, sent, received.num_examples, strict=True)
        replies = [_rewritten(self.setup.model, *parts) for parts in mine]
        self._arrays, outcome = self._strategy.judge(received, replies)
        new, _ = vectors_of(self.setup.model, self._arrays)
        return dataclasses.replace(outcome, aggregate=new - self.params)

    def _take_statistics(self, sent: Tensor, outcome: Outcome) -> None:
        """Take the statistics from the strategy's arrays."""
        if self._arrays is not None:
            self.statistics = vectors_of(self.setup.model, self._arrays)[1]


class _Strategy(GuardedStrategy):
    """A guarded strategy that asks whom it is told to, and lets the guard see the rest of the round."""

    def __init__(self, guard: Guard, server: Server) -> None:
        self._chosen = _Chosen()
        options: dict[str, Any] = {"identity": "node", "aggregate": "guard", "on_refusal": "raise"}
        super().__init__(self._chosen, guard, server=server, min_clients=1, per_client=False, **options)
        self._known: Round | None = None
        self._outcome: Outcome | None = None

    def ask(
        self, index: int, arrays: ArrayRecord, jobs: dict[int, ConfigRecord], ids: dict[int, Any], grid: Grid
    ) -> list[Message]:
        """The messages of a round to these nodes."""
        self.index, self._repeat, self._warned = index, False, True
        self._chosen.jobs = jobs
        messages = list(self.configure_train(index + 1, arrays, ConfigRecord(), grid))
        if self._open is not None:
            self._open.clients = ids
        return messages

    def judge(self, known: Round, replies: list[Message]) -> tuple[ArrayRecord, Outcome]:
        """The new arrays, and the guard's outcome."""
        self._known = known
        arrays, _ = self.aggregate_train(known.index + 1, replies)
        if arrays is None or self._outcome is None:
            raise WorkerError("Flower's strategy gave no arrays; run the same command to resume")
        return arrays, self._outcome

    def _barred(self, client: str) -> bool:
        return False  # the federation asks no banned client

    def _round(self, current: Open, heard: list[Reply], names: list[str]) -> Round:
        """The round as it arrived, with what Flower does not carry: steps, the server's data, the device."""
        arrived, known = super()._round(current, heard, names), self._known
        if known is None:
            return arrived
        whole = dataclasses.replace(
            known, updates=arrived.updates, num_examples=arrived.num_examples, faults=arrived.faults
        )
        return whole.to(known.updates.device)

    def _judged(self, current: Open, heard: list[Reply]) -> Judged:
        judged = super()._judged(current, heard)
        self._outcome = judged.outcome
        return judged


class _Chosen(FedAvg):
    """FedAvg whose messages go to the nodes of ``jobs``, each with its own configuration."""

    def __init__(self) -> None:
        super().__init__(fraction_evaluate=0.0, min_train_nodes=1, min_available_nodes=1)
        self.jobs: dict[int, ConfigRecord] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """One message per job."""
        return [
            Message(RecordDict({"arrays": arrays, "config": job}), node, MessageType.TRAIN)
            for node, job in self.jobs.items()
        ]


def client_app() -> ClientApp:
    """The clients: each trains as its message says."""
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Any) -> Message:
        return Message(answer(message), reply_to=message)

    return app


def answer(message: Message) -> RecordDict:
    """Train the client that a message names, with the code of the built-in loop."""
    from ..core.threads import single_thread

    job: Any = message.content["config"]
    key, client = CellKey(job["cell"]), job["client"]
    model = setup_of(key).model
    start, statistics = _sent(model, message)
    back = np.frombuffer(job["before"], dtype=np.float32) if job["before"] else None
    sent = start.numpy(), statistics.numpy()
    with single_thread():
        who = TrainJob(key, (client,), job["round"], *sent, job["attacking"], back)
        (update,), (own,), _ = train_job(who)
    weights = start + torch.from_numpy(update)
    numbers = MetricRecord({"num-examples": len(setup_of(key).samples[client])})
    return RecordDict({"arrays": record_of(model, weights, torch.from_numpy(own)), "metrics": numbers})


def record_of(model: nn.Module, weights: Tensor, statistics: Tensor) -> ArrayRecord:
    """Flower's arrays of a (d,) model and its (s,) statistics, under the model's names."""
    arrays: dict[str, NDArray[Any]] = {}
    for (name, like), part in zip(*_split(learned(model).items(), weights), strict=True):
        arrays[name] = part.view(like.shape).numpy()
    for (name, like), part in zip(*_split(_floating(model), statistics), strict=True):
        arrays[name] = part.view(like.shape).to(like.dtype).numpy()
    return ArrayRecord({name: Array(np.ascontiguousarray(array)) for name, array in arrays.items()})


def vectors_of(model: nn.Module, record: ArrayRecord) -> tuple[Tensor, Tensor]:
    """(d,) weights and (s,) statistics of Flower's arrays."""
    weights = [_flat(record[name]) for name in learned(model)]
    statistics = [_flat(record[name]) for name, _ in _floating(model)]
    return torch.cat(weights), torch.cat([torch.zeros(0), *statistics])


def _sent(model: nn.Module, message: Message) -> tuple[Tensor, Tensor]:
    arrays: Any = message.content["arrays"]
    return vectors_of(model, arrays)


def _flat(array: Array) -> Tensor:
    return torch.from_numpy(array.numpy().astype(np.float32).ravel())


def _floating(model: nn.Module) -> list[tuple[str, Tensor]]:
    return list(statistics_of(model).items())


def _split(
    named: Iterable[tuple[str, Tensor]], vector: Tensor
) -> tuple[list[tuple[str, Tensor]], tuple[Tensor, ...]]:
    parts = list(named)
    return parts, torch.split(vector, [like.numel() for _, like in parts]) if parts else ()


def _rewritten(model: nn.Module, reply: Message, weights: Tensor, examples: float) -> Message:
    """A reply with other weights and another number of examples, if they differ."""
    own, statistics = _sent(model, reply)
    numbers = MetricRecord({"num-examples": examples})
    arrays = reply.content["arrays"] if own.equal(weights) else record_of(model, weights, statistics)
    reply.content = RecordDict({"arrays": arrays, "metrics": numbers})
    return reply


def _checked(reply: Message | None, client: int) -> Message:
    if reply is None or reply.has_error():
        why = "did not reply" if reply is None else f"failed: {reply.error.reason}"
        raise WorkerError(f"Flower's client {client} {why}; run the same command to resume")
    return reply


def _refuse_what_flower_lacks(cell: Cell) -> None:
    """Refuse settings whose state or timing Flower's messages do not carry (ParameterError)."""
    attack = build_attack(cell)
    beyond = {
        "training.algorithm: scaffold": cell.training.algorithm == "scaffold",
        "training.patience": bool(cell.training.patience),
        "late": bool(cell.late),
        f"attack: {cell.attack.name}": prepares(attack) or trains(attack),
    }
    for name, given in beyond.items():
        if given:
            raise ParameterError(f"executor flower cannot run {name}; use the executor pool, ray or slurm")


def _nodes(grid: Grid, clients: int) -> list[int]:
    end = time.monotonic() + PATIENCE
    while len(found := sorted(grid.get_node_ids())) < clients:
        if time.monotonic() > end:
            raise WorkerError(f"Flower started {len(found)} nodes, and {clients} clients are needed")
        time.sleep(0.1)
    return found[:clients]
