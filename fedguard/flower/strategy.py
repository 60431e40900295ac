"""The wrapper: send the inner strategy's messages, judge the replies, pass the accepted ones on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ..contracts.round import Round
from ..contracts.server import Server
from ..core.errors import FedGuardError, ParameterError, RoundError, SecureAggregationError, StreamedError
from ..guard import Guard
from . import report
from .arrays import Layout, Malformed, clean
from .checks import check_options, needs_model, who_aggregates
from .forward import handed_on, restored
from .inner import HIDDEN, check_inner, check_messages, honored, lowered, weight_key
from .keeper import Keeper
from .nodes import GuardedGrid, Identity, OneByOne, TooFewNodesError, warned
from .progress import Judged, Open
from .replies import (
    SILENT,
    Reply,
    check_metrics,
    hides_updates,
    received,
    shared_fault,
)
from .report import Verdict, log
from .spill import Spill


class GuardedStrategy(Strategy):
    """Wraps any strategy of ``flwr.serverapp.strategy`` with a guard. It must be the outermost strategy.

    The guard scores every client's arrays minus the global model. The inner strategy aggregates the accepted
    replies; weights below 1 scale examples or updates (``reweight``). Banned clients get no messages. An
    unusable reply (an error, a timeout, missing or extra arrays, wrong shapes or dtypes, NaN, impossible
    numbers of examples, metrics unlike the other clients') never reaches the inner strategy, and its sender
    is a suspect in this round. If all replies have the same fault, the round is refused and no client blamed.

    Args:
        inner: the strategy that samples and aggregates; neither trees nor secure aggregation.
        guard: detectors, policy and ledger. Its aggregator and stages need ``aggregate="guard"``.
        server: what detectors need of the server: model, validation or root data, seed. The model tells
            which arrays are learned, frozen (``requires_grad``) or statistics (its buffers).
        parameters: names of the arrays that clients train (``"head.*"``, ``"!*.bias"``); "adapters" means
            LoRA adapters and the new head. All floating-point arrays by default. The others keep the server's
            values; but BatchNorm statistics, which are never scored, become the accepted clients' median.
        state: a folder for the guard's state and every verdict, so that bans survive a restart of the
            server; nothing is kept if absent.
        spill: a folder for the replies of a round, for models that do not fit into memory n times: each reply
            goes there when it arrives, and is scored and aggregated from there, piece by piece.
        identity: what identifies a client: "key", its public key (use this if the SuperLink authenticates
            SuperNodes; nodes without a key get no messages); "node", its node id; "auto", the key if there
            is one, else the node id, with a warning that bans can be evaded.
        reweight: what a weight between 0 and 1 scales: the number of "examples", the "delta" to the global
            model, or "auto": whichever the inner strategy honors.
        aggregate: who aggregates, the "inner" strategy or the "guard". With "guard", every accepted reply
            carries the guard's result, so the inner strategy returns it. Required if the guard has stages
            or an aggregator other than the mean.
        on_refusal: what to do if the guard refuses a round in spite of its ``on_too_few`` (a detector fails,
            say): "keep" the global model, "pass" all usable replies on unguarded, or "raise".
        silent: whether a client that does not reply in time is a "suspect" or to "ignore".
        max_examples: the largest number of examples to accept from a client.
        min_clients: bans lower the inner strategy's minimum numbers of nodes, but never below this.
        patience: if bans, or nodes without a key under ``identity="key"``, leave too few nodes for this many
            seconds, the round is skipped; allow time for nodes to come back after a restart. With nobody
            left out, the strategy waits as long as it likes.
        per_client: whether Flower's metrics list nodes, scores and weights one by one.

    Raises:
        ParameterError: the inner strategy cannot be guarded, or a parameter is out of range.
        SecureAggregationError: the inner strategy hides individual updates.
        NeedError: a method of the guard needs something that ``server`` does not have.
        ResultsError: the folder ``state`` holds a state that cannot be read.

    Example:
        >>> from fedguard import Guard
        >>> from flwr.serverapp.strategy import FedAvg
        >>> strategy = GuardedStrategy(FedAvg(), Guard.recommended(), identity="node")
    """

    def __init__(
        self,
        inner: Strategy,
        guard: Guard,
        *,
        server: Server | None = None,
        parameters: str | Sequence[str] | None = None,
        state: str | Path | None = None,
        spill: str | Path | None = None,
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
        check_options(identity, reweight, on_refusal, silent, max_examples, min_clients, patience)
        self.inner = inner
        self.guard = guard
        self.server = server or Server()
        self.parameters = [parameters] if isinstance(parameters, str) else parameters
        self.spill = Path(spill) if spill is not None else None
        self.identity: Identity = identity
        self.reweight = honored(inner) if reweight == "auto" else reweight
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
        #: Whether a method of the guard evaluates or trains the model, and so needs all its parameters.
        self._whole = needs_model(guard, self.server, self.aggregate == "guard")
        self._keeper = Keeper(Path(state) if state is not None else None, guard, identity)
        #: The guard's number of the next round; it continues after a restart.
        self.index = self._keeper.restore() or guard.next_index
        self._repeat = True  # the server before this one may have judged the first round already
        #: The verdicts of the last round.
        self.verdicts: list[Verdict] = []
        self._heard = False
        self._open: Open | None = None
        self._evaluating: list[Message] = []
        self._warned = False

    def start(self, grid: Grid, *args: Any, **options: Any) -> Result:
        """Run the federation, as any strategy of Flower; with ``spill``, replies are pulled one by one."""
        if self.spill is not None:
            grid = OneByOne(grid, lambda reply: self._open.keep(reply) if self._open else None)
        return super().start(grid, *args, **options)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return the inner strategy's messages to the clients that are not banned."""
        self._open = Open(arrays, Layout(arrays, self.parameters, self.server.model, self._whole))
        if self.spill is not None:
            self._open.spill = Spill(self.spill, self._open.layout)
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
        """Judge the replies and let the inner strategy aggregate the accepted ones."""
        if self._open is None:
            raise ParameterError("aggregate_train: no messages were sent; call configure_train first")
        current, self._open = self._open, None
        try:
            return self._trained(server_round, current, replies)
        finally:
            current.close()

    def _trained(
        self, server_round: int, current: Open, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        if not current.asked and not current.skipped:  # the inner strategy does not train in this round
            return self.inner.aggregate_train(server_round, replies)
        everyone = received(current.asked, replies)
        current.put_aside(everyone)
        if not self._heard and hides_updates(everyone):  # later, a client claims it, not the app
            raise SecureAggregationError(HIDDEN)
        excused = self.silent == "ignore"
        heard = [r for r in everyone if not (r.aside or (excused and r.fault == SILENT))]
        judged = self._judged(current, heard)
        self._keeper.keep(self.index, judged.verdicts)
        arrays, numbers, note = self._aggregated(server_round, current, heard, judged)
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
        """Return the inner strategy's messages to the clients that are not banned."""
        proxy = self._proxy(grid)
        self._evaluating, skipped = self._ask(
            proxy, lambda: self.inner.configure_evaluate(server_round, arrays, config, proxy)
        )
        if skipped:
            log.warning("FedGuard: no evaluation: %s", skipped)
        return self._evaluating

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Drop unusable replies, and let the inner strategy aggregate the rest.

        No client becomes a suspect here, as evaluation does not change the model.
        """
        answers = received(self._evaluating, replies)
        check_metrics(answers, self._weight_key, self.max_examples)
        for answer in answers:
            if answer.fault is not None:
                log.info("FedGuard: evaluation of node %d left out: %s", answer.node, answer.fault)
        good = [a.message for a in answers if a.fault is None and a.message is not None]
        return self.inner.aggregate_evaluate(server_round, good)

    def summary(self) -> None:
        """Log the settings of the guard and of the inner strategy."""
        inner = type(self.inner).__name__
        entries = {
            "Detectors": ", ".join(self.guard.detectors) or "none",
            "Policy": self.guard.policy.name,
            "Aggregated by": "the guard" if self.aggregate == "guard" else inner,
            "Weights below 1": f"as {self.reweight}",
            "State": self._keeper.folder or "not kept",
            f"Banned from round {self.index} on": f"{len(self._banned())} clients",
        }
        report.summarize(inner, entries)
        self.inner.summary()

    # --- sending messages

    def _proxy(self, grid: Grid) -> GuardedGrid:
        return GuardedGrid(grid, self.identity, self._barred, self.patience, bool(self._banned()))

    def _ask(
        self, proxy: GuardedGrid, configure: Callable[[], Iterable[Message]]
    ) -> tuple[list[Message], str]:
        """Return the inner strategy's messages to clients that are not banned, or why there are none."""
        try:
            with lowered(self.inner, len(self._banned()), self.min_clients):
                messages = list(configure())
            if any(m.metadata.dst_node_id not in proxy.clients for m in messages):
                proxy.get_node_ids()  # maps nodes that the strategy remembers to clients
        except TooFewNodesError as error:
            self._warned |= warned(proxy, self.identity, self._warned)
            return [], f"round skipped, the global model stays: {error}"
        self._warned |= warned(proxy, self.identity, self._warned)
        first = {client: node for node, client in reversed(proxy.clients.items())}
        allowed = {node for client, node in first.items() if not self._barred(client)}  # one node per client
        return [m for m in messages if m.metadata.dst_node_id in allowed], ""

    def _banned(self) -> list[Any]:
        return self.guard.banned(self.guard.ledger.clients(), self.index)

    def _barred(self, client: str) -> bool:
        return self.guard.ledger.is_banned(client, self.index)

    # --- judging

    def _judged(self, current: Open, heard: list[Reply]) -> Judged:
        """Return the guard's verdicts; if it refuses the round, what ``on_refusal`` says."""
        if not heard:
            return Judged(note="" if current.skipped else "no replies: the global model stays as it is")
        names = [current.clients[reply.node] for reply in heard]
        self._keeper.greet(names)
        round = self._round(current, heard, names)
        shared = shared_fault(heard)
        try:
            if shared is not None:
                raise RoundError(shared)
            judge = self.guard.process if self.aggregate == "guard" else self.guard.watch
            outcome = judge(round, repeat=self._repeat)
        except Exception as error:
            if self.on_refusal == "raise" or isinstance(error, StreamedError):  # every round would be refused
                raise
            return self._refused(error, round, heard, names, everybody=shared is not None)
        rows = report.verdicts(self.index, heard, names, outcome)
        return Judged(outcome.weights.tolist(), rows, outcome, note=outcome.note)

    def _round(self, current: Open, heard: list[Reply], names: list[str]) -> Round:
        updates = current.updates(heard, self._weight_key, self.max_examples)
        self._heard = self._heard or any(reply.fault is None for reply in heard)
        return Round(
            updates,
            client_ids=names,
            num_examples=[reply.examples for reply in heard],
            index=self.index,
            global_params=current.params(),
            server=current.layout.template.lent(self.server),
            faults=[reply.fault for reply in heard],
        )

    def _refused(
        self, error: Exception, round: Round, heard: list[Reply], names: list[str], everybody: bool
    ) -> Judged:
        """Continue without verdicts. Unusable replies still count against their clients.

        Otherwise a few clients could make the guard refuse every round without consequence. If all replies
        have the same fault, no client is blamed.
        """
        if not isinstance(error, FedGuardError):
            log.error("FedGuard: the guard failed", exc_info=error)
        useless = np.flatnonzero(~round.usable)
        if len(useless) and not everybody:
            with suppress(Exception):
                self.guard.skip(round, "the guard refused the round", repeat=self._repeat)
        weights = [0.0] * len(heard)
        if self.on_refusal == "pass":
            usable = zip(round.usable, names, strict=True)
            weights = [float(fine and not self._barred(client)) for fine, client in usable]
        what = "the global model stays as it is" if self.on_refusal == "keep" else "no client was scored"
        refusal = f"the guard refused the round, {what}: {clean(error, 300) or type(error).__name__}"
        rows = report.refused(self.index, heard, names, weights, round.problems, refusal)
        return Judged(weights, rows, refusal=refusal)

    # --- aggregating

    def _aggregated(
        self, server_round: int, current: Open, heard: list[Reply], judged: Judged
    ) -> tuple[ArrayRecord | None, MetricRecord | None, str]:
        """Return the inner strategy's result; the unchanged global model if it has none."""
        layout, before = current.layout, current.arrays
        if not any(weight > 0 for weight in judged.weights):
            return before, None, ""
        statistics = layout.middle(current.statistics, judged.weights)
        learned = {}
        if self.aggregate == "guard" and judged.outcome is not None:
            learned = layout.new(judged.outcome.aggregate)
        examples, given = (self._weight_key, judged.counted()), {**statistics, **learned}
        survivors = handed_on(heard, judged.weights, layout, self.reweight, examples, given)
        numbers = None
        try:
            arrays, numbers = self.inner.aggregate_train(server_round, survivors)
            return None if arrays is None else restored(arrays, layout, statistics), numbers, ""
        except Malformed as error:
            note = f"made {error}"
        except Exception as error:  # too few replies remain for it, say
            if self.on_refusal == "raise":
                raise
            log.error("FedGuard: the inner strategy failed", exc_info=error)
            note = f"failed ({clean(error, 200) or type(error).__name__})"
        return before, numbers, f"the inner strategy {note}: the global model stays as it is"
