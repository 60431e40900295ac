"""A simulated federation: clients train, the adversary crafts, the guard decides, the global model moves.

Only this file knows which clients are malicious; the guard sees a :class:`fedguard.Round`.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts.attack import Attack, Received, UpdateView
from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..contracts.server import Server, map_in_order
from ..core.devices import on_cpu, on_device
from ..core.errors import ParameterError
from ..core.ids import ClientId
from ..core.seeds import generator
from ..core.state import State
from ..exchange.template import weighted_median
from ..geometry.overwritten import overwritten
from ..geometry.updates import Updates
from ..guard import Guard
from ..training.local import side_by_side
from ..training.parameters import mean_of, with_statistics
from .attackers import adjusts, own_trial, prepare_round, prepares
from .build import build_attack, build_guard
from .client_data import changes_data, evaluation_batches, poisons_data
from .jobs import EvaluationJob, Gathering, TrainJob, evaluate_batch
from .keys import CellKey
from .leaks import leak_job, leak_jobs, mean_leak
from .participation import Call, LocalWork, call
from .placement import guard_device, map_on
from .progress import GENERATION, LEAK, NOBODY, client_row, is_finite, reported, same_bits
from .progress import Progress as Progress
from .records import ClientRow, RoundRecord
from .settings import Cell
from .setup import Setup, setup_for
from .threaded import own_work
from .trajectory import Trajectory

Map = Callable[[Callable[[Any], Any], Iterable[Any]], list[Any]]

#: The most clients per piece of work if they are trained side by side. A hundred clients give eight pieces of
#: nearly equal size, which 2, 4 or 8 workers share evenly.
TOGETHER = 13
#: Without workers, a piece has up to this many parameters of all its clients, which stay in the cache.
IN_CACHE = 2**19


class Federation(Trajectory):
    """One simulated federation under one attack and one defense.

    Args:
        cell: all settings.
        map: runs the clients' training and other independent work; in this process if absent.
        clients: the clients of this federation; all of the cell's if absent.
    """

    def __init__(self, cell: Cell, map: Map = map_in_order, clients: Sequence[int] | None = None) -> None:
        self.cell = cell
        self.setup: Setup = setup_for(cell)
        self.attack: Attack = build_attack(cell)
        members = range(cell.clients) if clients is None else clients
        self.guard: Guard = build_guard(cell.shrunk_to(len(members)))
        self.malicious = self.setup.malicious if self.attack.kind not in ("none", "passive") else []
        self._attacked = set(cell.attack.schedule.rounds(cell.rounds, cell.seed))
        self._names: dict[int, list[ClientId]] = {c: [c] for c in members}
        self._map = map
        self._gathering = Gathering()
        self._training = self.setup.training
        self._begin(len(self._names))
        self._key = CellKey.of(cell)
        self._work = own_work(map, self._key)  # for training and testing
        #: Where attacks craft and the guard judges.
        self._place = guard_device(self._key)
        self._server = self.setup.server(map_on(self._key, map)).to(self._place)
        self._start = self.params  # the global model of the current round, there

    def state_dict(self) -> State:
        """Everything that later rounds depend on, except randomness, which comes from seed and round."""
        return {
            "params": self.params,
            "previous_params": self.previous_params,
            "names": [[client, names] for client, names in self._names.items()],
            "guard": self.guard.state_dict(),
            "attack": self.attack.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            **({"statistics": self.statistics} if len(self.statistics) else {}),
            **({"mail": self._mail.state_dict()} if self.cell.late else {}),
            **({"scaffold": self._controls.state_dict()} if self._controls is not None else {}),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self.params, self.previous_params = state["params"], state["previous_params"]
        self.statistics = state.get("statistics", self.statistics)
        self._names = {client: list(names) for client, names in state["names"]}
        self.guard.load_state_dict(state["guard"])
        self.attack.load_state_dict(state["attack"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._mail.load_state_dict(state.get("mail", {}))
        if self._controls is not None:
            self._controls.load_state_dict(state["scaffold"])

    def step(self, index: int) -> RoundRecord:
        """Run one round and measure the new global model."""
        return self.record(self.advance(index))

    def record(self, progress: Progress) -> RoundRecord:
        """The record of a round, with the metrics of the new global model (NaN if it is not tested)."""
        error = loss = asr = math.nan
        made: dict[str, float] = {}
        tested = self.cell.tests_after(progress.index)
        if tested:
            error, loss = self._evaluate(targeted=False)
            asr = 1 - self._evaluate(targeted=True)[0]
            made = self.setup.score_samples(self.params, self.statistics)
        finite, outcome = is_finite(progress, self.params, loss if tested else 0.0), progress.outcome
        info = reported(outcome, {LEAK: progress.leaked, GENERATION: made})
        note = outcome.note if outcome else NOBODY
        return RoundRecord(
            progress.index, self.rows(progress), 1 - error, loss, asr, note, info, progress.seconds, finite
        )

    def advance(self, index: int) -> Progress:
        """Run one round: train, attack, guard, move the global model."""
        self._let_attackers_return(index)
        banned = [c for c in self._names if self.guard.banned([self.id_of(c)], index)]
        called = call(self.setup, index, set(self._names) - set(banned), len(self._names), self._mail.senders)
        asked, attacking = called.sending, self.attacking(index)
        seconds: dict[str, float] = {}
        outcome, received, leaked = None, None, {}
        if asked:
            start = time.perf_counter()
            work = self._mail.exchange(self._train(called.training, attacking, index), called)
            work = work._replace(updates=self._there(work.updates))
            self._start = self._there(self.params)
            seconds["training"] = time.perf_counter() - start
            attacking = attacking & set(asked)
            sent, changed = self._craft(work, attacking, index)
            received = self._round(work, sent, index, attacking)
            leaked = self._leaked(received, called, index)
            attacking = self._active(attacking, changed)
            outcome = self._decide(received)
            seconds.update(outcome.seconds)
            self.previous_params = self.params
            self.params = self._optimizer.step(self.params, on_cpu(outcome.aggregate))
            self._take_statistics(work.statistics, outcome)
            if self._controls is not None:
                lr = self._training.in_round(index, self.cell.rounds).lr
                self._controls.learn(asked, on_cpu(sent.matrix), work.steps, lr, outcome.weights > 0)
            if outcome.restart:
                self._begin(len(self._names))
        return Progress(index, asked, attacking & set(asked), outcome, seconds, received, called, leaked)

    def _leaked(self, received: Round, called: Call, index: int) -> dict[str, float]:
        """What a passive attack reconstructs from the updates of a round."""
        if self.attack.kind != "passive" or index not in self._attacked:
            return {}
        jobs = leak_jobs(self._key, received, called, index, self.params, self.statistics)
        return mean_leak(self._map(leak_job, jobs))

    def _decide(self, received: Round) -> Outcome:
        """The guard's decision on a round."""
        return self.guard.process(received)

    def _take_statistics(self, sent: Tensor, outcome: Outcome) -> None:
        """Take the weighted median of the accepted clients' statistics, as a live guard does."""
        heard = outcome.weights > 0
        if len(self.statistics) and heard.any():
            middle = weighted_median(sent.double().numpy()[heard], outcome.weights[heard])
            self.statistics = torch.from_numpy(middle).to(self.statistics.dtype)

    def rows(self, progress: Progress) -> list[ClientRow]:
        """One row for every client of this federation."""
        position = {client: i for i, client in enumerate(progress.asked)}
        members = [(c, self.id_of(c), c in self.malicious) for c in self._names]
        return [client_row(self.guard, who, position.get(who[0]), progress) for who in members]

    @property
    def clients(self) -> list[int]:
        """The clients of this federation."""
        return list(self._names)

    def id_of(self, client: int) -> ClientId:
        """A client's current id."""
        return self._names[client][-1]

    def names_of(self, client: int) -> list[ClientId]:
        """Every id that a client has had."""
        return self._names[client]

    def ever_banned(self, client: int) -> bool:
        """Whether a client was ever banned, under any id."""
        return any(self.guard.ledger.ever_banned(name) for name in self._names[client])

    def attacking(self, index: int) -> set[int]:
        """The clients that attack in a round if they take part."""
        members = self.cell.attack.schedule.members(self.malicious, index)
        return set(members) if index in self._attacked else set()

    def _let_attackers_return(self, index: int) -> None:
        """Let banned attackers come back under new ids if the schedule says so."""
        wait = self.cell.attack.schedule.rejoin_after
        for client in self._names.keys() & set(self.malicious) if wait is not None else ():
            since = self.guard.ledger[self.id_of(client)].banned_since
            if since is not None and wait is not None and index >= since + wait:
                self._names[client].append(f"{client}.{len(self._names[client])}")

    def _round(self, work: LocalWork, updates: Updates, index: int, attacking: set[int]) -> Round:
        """The round as the server receives it."""
        # Clients claim their own samples; a backdoor does not reveal that it trains on more.
        claims = np.array([len(self.setup.samples[c]) for c in work.clients], dtype=float)
        bad = np.array([client in attacking for client in work.clients])
        if bad.any():
            claims[bad] = self.attack.claim(claims[bad], claims.copy())
        return Round(
            updates,
            client_ids=tuple(self.id_of(c) for c in work.clients),
            num_examples=claims,
            num_steps=work.steps,
            index=index,
            global_params=self._start,
            server=self._lent(index),
        )

    def _lent(self, index: int) -> Server:
        """The server's assets: the global model's statistics in its model, and the round's learning rate."""
        server, training = self._server, self._training.in_round(index, self.cell.rounds)
        if training is not server.training:
            server = dataclasses.replace(server, training=training)
        if not len(self.statistics):
            return server
        model = server.model or self.setup.model
        return dataclasses.replace(server, model=with_statistics(model, self.statistics))

    def _there(self, tensor: Tensor) -> Tensor:
        return on_device(tensor, self._place)

    def _train(self, asked: list[int], attacking: set[int], index: int) -> LocalWork:
        """What the round's participants train."""
        start, statistics = self.params.numpy(), self.statistics.numpy()
        before = self.previous_params.numpy() if self._adjusts else None
        bad = [client for client in asked if client in attacking]
        state = prepare_round(self.attack, self._key, bad, index, start, statistics)
        jobs: list[TrainJob] = []
        for attacks in (False, True):
            some = [client for client in asked if (client in attacking) == attacks]
            pieces = -(-len(some) // self._together(attacks))
            for part in np.array_split(some, pieces) if some else ():
                clients = tuple(part.tolist())
                back = before if attacks else None
                added = None if self._controls is None else self._controls.corrections(clients)
                own = state if attacks else None
                job = TrainJob(self._key, clients, index, start, statistics, attacks, back, added, own)
                jobs.append(job)
        sizes = len(start), len(statistics)
        return self._gathering.run(self._work, asked, jobs, sizes, self._planned(asked, index))

    def _planned(self, asked: list[int], index: int) -> np.ndarray[Any, Any]:
        """(n,) the steps that each client will take in a round, as FedNova counts them."""
        training = self._training.in_round(index, self.cell.rounds)
        return np.array([training.effective_steps(len(self.setup.samples[c])) for c in asked], dtype=float)

    def _active(self, attacking: set[int], changed: set[int]) -> set[int]:
        """The attackers that sent something other than their honest update, or trained on other data.

        For example, flipping the labels of a class that a client does not have changes nothing.
        """
        if self._adjusts:
            return attacking
        if poisons_data(type(self.attack)):
            changed |= {client for client in attacking if changes_data(self._key, client)}
        return changed

    @property
    def _adjusts(self) -> bool:
        return adjusts(self.attack)

    def _together(self, attacking: bool) -> int:
        """How many clients form one piece of work: several if they can be trained side by side."""
        # Poisoning data may take long, and adjusted training differs from client to client.
        alone = attacking and (self._adjusts or poisons_data(type(self.attack)))
        alone = alone or self._controls is not None
        inputs = self.setup.dataset.training_set.inputs
        if alone or not side_by_side(self.setup.model, inputs, self._training):
            return 1
        return max(TOGETHER, IN_CACHE // len(self.params)) if self._work is map_in_order else TOGETHER

    def _craft(self, work: LocalWork, attacking: set[int], index: int) -> tuple[Updates, set[int]]:
        """What clients send, in the memory of what they trained, and the attackers that changed theirs."""
        updates, bad = Updates(work.updates), np.array([client in attacking for client in work.clients])
        if not bad.any():
            return updates, set()
        known, own, _ = "benign_updates" in self.attack.knowledge, np.flatnonzero(bad), updates.finite

        def received(crafted: Tensor) -> tuple[Round, np.ndarray[Any, Any]]:
            whole = self._round(work, overwritten(updates, own, crafted, copy=True), index, attacking)
            return (whole, own) if known else (whole.take(own), np.arange(len(own)))

        view = self._view(updates, bad, index, received)
        crafted = self.attack.craft(view)
        if crafted.shape != (len(own), updates.d):
            raise ParameterError(
                f"attack {self.attack.name} crafted shape {tuple(crafted.shape)}, "
                f"expected {(len(own), updates.d)}"
            )
        self.attack.commit(view, crafted)
        pairs = zip(own.tolist(), crafted.to(torch.float32), strict=True)
        changed = {work.clients[i] for i, row in pairs if not same_bits(updates.matrix[i], row)}
        return overwritten(updates, own, crafted), changed

    def _view(
        self, updates: Updates, bad: np.ndarray[Any, Any], index: int, received: Received
    ) -> UpdateView:
        """What the attack may see, exactly as it declares."""
        know = self.attack.knowledge
        return UpdateView(
            index=index,
            num_clients=updates.n,
            global_params=self._start,
            previous_params=self._there(self.previous_params),
            initial_params=self._there(self.setup.initial),
            own_updates=updates.take(bad),
            generator=generator(self.cell.seed, "attack", index),
            attack=self.attack.name,
            benign_updates=updates.take(~bad) if "benign_updates" in know else None,
            aggregator=copy.deepcopy(self.guard.aggregator) if "aggregator" in know else None,
            defense=copy.deepcopy(self.guard) if "defense" in know else None,
            received=received if "defense" in know else None,
        )

    def _evaluate(self, targeted: bool) -> tuple[float, float]:
        """Error rate and mean loss on the test set, or on the attack's trial (NaN if it has none)."""
        if targeted and prepares(self.attack):
            return own_trial(self.attack, self._key, self.params, self.statistics)
        parts = evaluation_batches(self._key, targeted)
        model = self.params.numpy(), self.statistics.numpy()
        jobs: list[EvaluationJob] = [(self._key, targeted, k, *model) for k in range(len(parts))]
        return mean_of(self._work(evaluate_batch, jobs), sum(len(part.labels) for part in parts))
