"""The wrapper: ask the inner strategy whom to ask, judge the replies, hand on what is left of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from ..errors import FedGuardError, ParameterError, SecureAggregationError
from ..guard import Guard, Outcome
from ..round import Round
from ..server import Server
from . import report
from .arrays import Layout, clean
from .checks import at_least, needs_model, one_of, who_aggregates
from .forward import finite, handed_on
from .inner import HIDDEN, check_inner, check_messages, honoured, lowered, weight_key
from .keeper import Keeper
from .nodes import EVADABLE, GuardedGrid, Identity, TooFewNodesError
from .replies import SILENT, Reply, check_arrays, check_metrics, check_record_names, hides_updates, received
from .report import Verdict, log


@dataclass
class _Open:
    """A round between asking and aggregating."""

    arrays: ArrayRecord
    layout: Layout
    asked: list[Message] = field(default_factory=list)
    clients: dict[int, str] = field(default_factory=dict)
    skipped: str = ""


@dataclass
class _Judged:
    """What became of the replies of a round, in their order."""

    weights: list[float] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    outcome: Outcome | None = None
    refusal: str = ""
    note: str = ""


class GuardedStrategy(Strategy):
    """Puts a guard before any strategy of ``flwr.serverapp.strategy``.

    The guard sees what every client sent minus the global model, decides, and the inner strategy aggregates
    what is left, with weights below 1 as fewer examples or a shorter way (``reweight``). Banned clients are
    not asked again. A reply that cannot be used (an error, nothing in time, missing or extra arrays, wrong
    shapes or dtypes, NaN, impossible numbers of examples, metrics unlike everybody else's) never reaches the
    inner strategy: its sender is a suspect of this round, with the reason. It must be the outermost strategy.

    Args:
        inner: the strategy that samples and aggregates; not one about trees, nor secure aggregation.
        guard: detectors, policy and ledger. Its aggregator and stages work with ``aggregate="guard"``.
        server: what detectors need of the server: model, validation or root data, seed.
        parameters: names of the arrays that are scored (``"*lora*"``, ``"!*.running_*"``); all that hold
            floating-point numbers if absent. The others are only checked and handed on, so clients can
            attack through them: choose only what clients train.
        state: a folder in which the guard's state and every verdict are kept, so that bans outlive the
            server; nothing is kept if absent.
        identity: who is the same client: "key", whoever has the same public key (say this if the SuperLink
            authenticates SuperNodes; nodes without a key are not asked); "node", the same node id; "auto",
            the key where there is one, else the node id, with a warning that bans can be evaded.
        reweight: how a weight between 0 and 1 takes effect: as fewer "examples", as a shorter "delta" to the
            global model, or "auto": whichever the inner strategy honours.
        aggregate: who aggregates, the "inner" strategy or the "guard"; then the inner strategy gets the
            guard's result from every accepted client, and so returns it. Must be said if the guard has
            stages or another aggregator than the mean.
        on_refusal: what happens to a round that the guard refuses in spite of its ``on_too_few`` (a detector
            fails, say): "keep" the global model as it is, "pass" on all usable replies unguarded, or "raise".
        silent: whether a client whose reply does not come in time is a "suspect" or to "ignore".
        max_examples: the largest number of examples that a client is believed.
        min_clients: bans lower what the inner strategy waits for, but never below so many nodes.
        patience: seconds after which a round is skipped for which bans leave too few nodes; long enough for
            nodes to come back after a restart. Without bans a strategy waits as long as it likes.
        per_client: whether Flower's metrics list nodes, scores and weights one by one.

    Raises:
        ParameterError: the inner strategy cannot be guarded, or a parameter is out of range.
        SecureAggregationError: the inner strategy hides individual updates.
        NeedError: a method of the guard needs something that ``server`` does not have.
        ResultsError: the folder ``state`` holds a state that cannot be read.
    """

    def __init__(
        self,
        inner: Strategy,
        guard: Guard,
        *,
        server: Server | None = None,
        parameters: str | Sequence[str] | None = None,
        state: str | Path | None = None,
        identity: Identity = "auto",
        reweight: Literal["auto", "examples", "delta"] = "auto",
        aggregate: Literal["inner", "guard"] | None = None,
        on_refusal: Literal["keep", "pass", "raise"] = "keep",
        silent: Literal["suspect", "ignore"] = "suspect",
        max_examples: float = 1e9,
        min_clients: int = 2,
        patience: float = 300.0,
        per_client: bool = True,
    ) -> None:
        check_inner(inner)
        one_of("identity", identity, "auto", "key", "node")
        one_of("reweight", reweight, "auto", "examples", "delta")
        one_of("on_refusal", on_refusal, "keep", "pass", "raise")
        one_of("silent", silent, "suspect", "ignore")
        at_least("max_examples", max_examples, 1)
        at_least("min_clients", min_clients, 1)
        at_least("patience", patience, 0)
        self.inner = inner
        self.guard = guard
        self.server = server or Server()
        self.parameters = [parameters] if isinstance(parameters, str) else parameters
        self.identity: Identity = identity
        self.reweight = honoured(inner) if reweight == "auto" else reweight
        self.aggregate = who_aggregates(guard, aggregate)
        self.on_refusal = on_refusal
        self.silent = silent
        self.max_examples = max_examples
        self.min_clients = min_clients
        self.patience = patience
        self.per_client = per_client
        self._weight_key = weight_key(inner)
        if self.reweight == "examples" and self._weight_key is None:
            raise ParameterError("reweight: the inner strategy does not count examples; use 'delta'")
        #: The model whose parameters are scored, if a method of the guard evaluates or trains it.
        self._model = (
            self.server.model if needs_model(guard, self.server, self.aggregate == "guard") else None
        )
        self._keeper = Keeper(Path(state) if state is not None else None, guard, identity)
        #: The guard's number of the next round; it goes on after a restart.
        self.index = self._keeper.restore() or guard.next_index
        self._repeat = True  # the first round of this server may be one that the server before it has judged
        #: The verdicts of the last round.
        self.verdicts: list[Verdict] = []
        self._layout: Layout | None = None
        self._open: _Open | None = None
        self._evaluating: list[Message] = []
        self._warned = False

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask those whom the inner strategy chooses among the clients that are not banned."""
        layout = self._layout = Layout(arrays, self.parameters, self._model, self._layout)
        self._open = _Open(arrays, layout)
        proxy = self._proxy(grid)
        self._open.asked, self._open.skipped = self._ask(
            proxy, lambda: self.inner.configure_train(server_round, arrays, config, proxy)
        )
        check_messages(self._open.asked)
        self._open.clients = proxy.clients
        return self._open.asked

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Judge the replies and let the inner strategy aggregate what the guard lets through."""
        if self._open is None:
            raise ParameterError("aggregate_train: nothing was asked; call configure_train first")
        current, self._open = self._open, None
        if not current.asked and not current.skipped:  # the inner strategy does not train in this round
            return self.inner.aggregate_train(server_round, replies)
        everyone = received(current.asked, replies)
        if hides_updates(everyone):
            raise SecureAggregationError(HIDDEN)
        heard = [reply for reply in everyone if not (reply.aside or self._may_be_silent(reply))]
        judged = self._judged(current, heard)
        survivors = self._survivors(current, heard, judged)
        self._keeper.keep(self.index, judged.verdicts)
        arrays, numbers, note = self._aggregated(server_round, current.arrays, survivors)
        aside = [f"node {r.node} put aside: {r.fault}" for r in everyone if r not in heard]
        notes = [current.skipped, judged.refusal, judged.note, note, *aside]
        report.tell(self.index, server_round, judged.verdicts, "; ".join(filter(None, notes)))
        self.verdicts = judged.verdicts
        self.index += 1
        self._repeat = False
        kept = arrays is None or arrays is current.arrays
        record = numbers or MetricRecord()
        record.update(report.metrics(self.verdicts, kept, bool(judged.refusal), self.per_client))
        return arrays, record

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask those whom the inner strategy chooses among the clients that are not banned."""
        proxy = self._proxy(grid)
        self._evaluating, skipped = self._ask(
            proxy, lambda: self.inner.configure_evaluate(server_round, arrays, config, proxy)
        )
        if skipped:
            log.warning("FedGuard: no evaluation: %s", skipped)
        return self._evaluating

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Leave out what cannot be used, and let the inner strategy aggregate the rest.

        Nobody becomes a suspect here: the model does not depend on it.
        """
        answers = received(self._evaluating, replies)
        check_metrics(answers, self._weight_key, self.max_examples)
        for answer in answers:
            if answer.fault is not None:
                log.info("FedGuard: evaluation of node %d left out: %s", answer.node, answer.fault)
        good = [a.message for a in answers if a.fault is None and a.message is not None]
        return self.inner.aggregate_evaluate(server_round, good)

    def summary(self) -> None:
        """Log the guard's settings, and the inner strategy's."""
        aggregator = "the guard" if self.aggregate == "guard" else type(self.inner).__name__
        log.info("\t├──> FedGuard before %s:", type(self.inner).__name__)
        log.info("\t│\t├── Detectors: %s", ", ".join(self.guard.detectors) or "none")
        log.info("\t│\t├── Policy: %s", self.guard.policy.name)
        log.info("\t│\t├── Aggregated by %s, weights below 1 as %s", aggregator, self.reweight)
        log.info("\t│\t├── State: %s", self._keeper.folder or "not kept")
        log.info("\t│\t└── Banned from round %d on: %d clients", self.index, len(self._banned()))
        self.inner.summary()

    # --- asking

    def _proxy(self, grid: Grid) -> GuardedGrid:
        patience = self.patience if self._banned() else None
        return GuardedGrid(grid, self.identity, self._barred, patience)

    def _ask(
        self, proxy: GuardedGrid, configure: Callable[[], Iterable[Message]]
    ) -> tuple[list[Message], str]:
        """The inner strategy's messages to clients that are not banned; or why there are none."""
        try:
            with lowered(self.inner, len(self._banned()), self.min_clients):
                messages = list(configure())
            if any(m.metadata.dst_node_id not in proxy.clients for m in messages):
                proxy.get_node_ids()  # a strategy that asks nodes it remembers: who are they?
        except TooFewNodesError as error:
            return [], f"round skipped, the global model stays: {error}"
        self._warn(proxy)
        first = {client: node for node, client in reversed(proxy.clients.items())}
        allowed = {node for client, node in first.items() if not self._barred(client)}  # one node each
        return [m for m in messages if m.metadata.dst_node_id in allowed], ""

    def _warn(self, proxy: GuardedGrid) -> None:
        if proxy.nameless:
            log.warning("FedGuard: %d nodes have no public key and are not asked", len(proxy.nameless))
        if not self._warned and self.identity != "key" and proxy.clients:
            keyed = any(client.startswith("key-") for client in proxy.clients.values())
            log.warning(EVADABLE.format(what="public keys" if keyed else "node ids"))
            self._warned = True

    def _banned(self) -> list[Any]:
        return self.guard.banned(self.guard.ledger.clients(), self.index)

    def _barred(self, client: str) -> bool:
        return self.guard.ledger.is_banned(client, self.index)

    # --- judging

    def _may_be_silent(self, reply: Reply) -> bool:
        return self.silent == "ignore" and reply.fault == SILENT

    def _judged(self, current: _Open, heard: list[Reply]) -> _Judged:
        """What the guard says; where it refuses the round, what is done without it."""
        if not heard:
            return _Judged(note="" if current.skipped else "nobody replied: the global model stays as it is")
        names = [current.clients[reply.node] for reply in heard]
        known = {str(client) for client in self.guard.ledger.clients()}
        for name in names if known else []:
            if name not in known:
                log.info("FedGuard: %s takes part for the first time, nothing is known of it", name)
        round = self._round(current, heard, names)
        try:
            judge = self.guard.process if self.aggregate == "guard" else self.guard.watch
            outcome = judge(round, repeat=self._repeat)
        except Exception as error:
            if self.on_refusal == "raise":
                raise
            return self._refused(error, round, heard, names)
        rows = report.verdicts(self.index, heard, names, outcome)
        return _Judged(outcome.weights.tolist(), rows, outcome, note=outcome.note)

    def _round(self, current: _Open, heard: list[Reply], names: list[str]) -> Round:
        matrix = torch.empty(len(heard), current.layout.size)
        check_metrics(heard, self._weight_key, self.max_examples)
        check_arrays(heard, current.layout, matrix.numpy())
        check_record_names(heard)
        return Round(
            matrix,
            client_ids=names,
            num_examples=[reply.examples for reply in heard],
            index=self.index,
            global_params=current.layout.flat(),
            server=self.server,
            faults=[reply.fault for reply in heard],
        )

    def _refused(self, error: Exception, round: Round, heard: list[Reply], names: list[str]) -> _Judged:
        """Go on without a verdict; those whose reply cannot be used are dealt with all the same.

        Otherwise enough of them could keep the guard from ever judging anybody, at no price.
        """
        if not isinstance(error, FedGuardError):
            log.error("FedGuard: the guard failed", exc_info=error)
        useless = np.flatnonzero(~round.usable)
        if len(useless):
            with suppress(Exception):
                self.guard.skip(round, "the guard refused the round", repeat=self._repeat)
        weights = [0.0] * len(heard)
        if self.on_refusal == "pass":
            usable = zip(round.usable, names, strict=True)
            weights = [float(fine and not self._barred(client)) for fine, client in usable]
        what = "the global model stays as it is" if self.on_refusal == "keep" else "nobody was scored"
        refusal = f"the guard refused the round, {what}: {clean(error, 300) or type(error).__name__}"
        rows = report.refused(self.index, heard, names, weights, round.problems, refusal)
        return _Judged(weights, rows, refusal=refusal)

    # --- aggregating

    def _survivors(self, current: _Open, heard: list[Reply], judged: _Judged) -> list[Message]:
        result = None
        if self.aggregate == "guard" and judged.outcome is not None:
            result = current.layout.split(judged.outcome.aggregate)
        how, key = self.reweight, self._weight_key
        return handed_on(heard, judged.weights, current.layout, how, key, result)

    def _aggregated(
        self, server_round: int, before: ArrayRecord, survivors: list[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None, str]:
        """The inner strategy's result; the global model as it was if there is none to be had."""
        if not survivors:
            return before, None, ""
        arrays, numbers = self.inner.aggregate_train(server_round, survivors)
        if arrays is not None and not finite(arrays):
            return before, numbers, "the inner strategy made NaN or Inf: the global model stays as it is"
        return arrays, numbers, ""
