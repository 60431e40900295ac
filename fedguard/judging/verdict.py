"""Judge a numbered round. Nothing here changes the guard's state."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.any_guard import AnyGuard
from ..contracts.decision import Decision, PolicyInput, checked
from ..contracts.detector import Detector
from ..contracts.outcome import Outcome
from ..contracts.round import Round
from ..contracts.scores import Scores, combined, filled
from ..contracts.stage import Staged
from ..core.errors import TooFewClientsError
from ..core.ids import by_id
from ..ledger.memory import Ledger
from .claims import counted, said, weighed
from .parts import Spec
from .too_few import OnTooFew, banned_elsewhere, chosen, told, with_fewer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WholeGuard(AnyGuard, Protocol):
    """What judging uses of a guard, in addition to :class:`AnyGuard`."""

    mean: Aggregator
    on_too_few: OnTooFew | None
    claim_limit: float | None

    def instead(self, aggregator: Aggregator | Spec) -> Aggregator:
        """Another aggregator behind the guard's stages."""


#: The note on a round in which no client is accepted.
KEPT = "every client was excluded: the global model stays as it is"
#: The note on a round without any usable update, which is more likely the server's fault than every client's.
ALL_UNUSABLE = "no update can be used: nobody gets a strike, and the global model stays as it is"


class Verdict(NamedTuple):
    """A judged round before it is committed; clients are sorted by id.

    Attributes:
        round: the round.
        part: the round restricted to the scored clients; None if there are none.
        scores: detector name → scores of the scored clients.
        decision: the policy's decision on the scored clients.
        outcome: the result for the caller.
        bans: position → first round in which the client may return; None for a permanent ban.
        past: the ledger's records of the round's clients before this round.
        aggregated: whether an aggregation rule computed the aggregate; False if the global model stays.
        noted: (n,) bool, the clients whose verdict goes into the ledger.
        strikes: (n,) bool, the clients that get a strike.
        unusable: (n,) bool, the clients that are suspects because of an unusable update.
    """

    round: Round
    part: Round | None
    scores: Mapping[str, Scores]
    decision: Decision
    outcome: Outcome
    bans: Mapping[int, int | None]
    past: Ledger
    aggregated: bool
    noted: NDArray[np.bool_]
    strikes: NDArray[np.bool_]
    unusable: NDArray[np.bool_]


class Judging:
    """Judges one round with a guard's methods.

    Sums and ties depend on the order of rows, but a verdict must not depend on the order in which updates
    arrive. So clients are judged in the order of their ids.

    Args:
        guard: provides the methods and the ledger.
        round: a round with a number.

    Attributes:
        order: the caller's positions of the clients, sorted by id.
        barred: (n,) bool, the clients that are banned.
        judged: the positions of clients that are not banned and sent a usable update.
        part: the round restricted to ``judged``; None if there are none.
        counted: (n,) the share of each client's claimed samples that counts; 1 until the verdict.
        seconds: wall time per part.
        notes: the remarks for ``Outcome.note``.
    """

    def __init__(self, guard: WholeGuard, round: Round) -> None:
        self.guard = guard
        self.order = np.array(by_id(round.client_ids), dtype=np.intp)
        self.past = guard.ledger.view(round.client_ids)
        self.round = round.take(self.order).with_server(aggregator=guard.aggregator)
        self.barred = np.array([self.past.is_banned(c, round.index) for c in self.round.client_ids])
        self.judged = np.flatnonzero(self.round.usable & ~self.barred)
        self.part = self.round.take(self.judged) if len(self.judged) else None
        if self.part is not None:  # for stages only: a detector's leave-one-out must forget who is left out
            self.round = self.round.with_server(received=self.part.updates)
        self.counted = np.ones(round.n)
        self.seconds = dict.fromkeys((*guard.detectors, "policy", "aggregator"), 0.0)
        self.notes: list[str] = []
        #: The rule that replaces the aggregator if there are too few clients for the detectors.
        self.instead = ""

    def verdict(self, aggregate: bool = True, skip: str = "") -> Verdict:
        """Judge the round.

        Args:
            aggregate: False skips the aggregation.
            skip: a reason for scoring no client; then no client contributes. Empty to score as usual.

        Raises:
            FedGuardError: the round does not fit a detector or the aggregator.
        """
        scores, decision, scored = self._opinion(skip)
        weights = filled(self.round.n, self.judged, decision.weights, 0.0)
        accepted = np.flatnonzero(weights > 0)
        self.counted[accepted] = counted(self.round.num_examples[accepted], self.guard.claim_limit)
        total, weights, applied = self._aggregate(weights, decision.plain, aggregate)
        blamed = ~self.round.usable & ~self.barred & (len(self.judged) > 0)
        bans, reasons = self._reasons(blamed, decision)
        strikes = blamed.copy()
        strikes[self.judged] = decision.suspects if decision.strikes is None else decision.strikes
        noted = blamed.copy()
        noted[self.judged] = scored
        if not (weights > 0).any() and not any("stays as it is" in note for note in self.notes):
            self.notes.append(KEPT if len(self.judged) or self.barred.all() else ALL_UNUSABLE)
        restart = self._restarts(scores, decision)
        outcome = self._outcome(total, weights, scores, decision, bans, reasons, restart)
        part = self.part if scored else None
        return Verdict(
            self.round, part, scores, decision, outcome, bans, self.past, applied, noted, strikes, blamed
        )

    def suspects(self) -> NDArray[np.bool_]:
        """(n,) the suspects, in the caller's order; aggregates nothing."""
        return self._all_suspects(self._opinion()[1])[np.argsort(self.order)]

    def _opinion(self, skip: str = "") -> tuple[dict[str, Scores], Decision, bool]:
        """The scores, the decision, and whether the clients in ``judged`` were scored."""
        if self.part is None:
            return {}, Decision(np.zeros(0), np.zeros(0, dtype=bool), ()), True
        if skip:
            return {}, self._unscored(skip, np.zeros(self.part.n)), False
        try:
            scores = self._scores(self.part)
        except TooFewClientsError as error:
            return {}, self._too_few_to_score(self.part, error), False
        return scores, self._ask_policy(self.part, scores), True

    def _scores(self, part: Round) -> dict[str, Scores]:
        scores: dict[str, Scores] = {}
        for name, detector in self.guard.detectors.items():
            with timed(self.seconds, name):
                scores[name], fewer = with_fewer(partial(self._score, detector, part), self._out)
            self._tell(name, fewer)
        return scores

    def _score(self, detector: Detector, part: Round, fewer: int) -> Scores:
        rule = told(self.guard.aggregator, fewer)
        return told(detector, fewer)(
            part if rule is self.guard.aggregator else part.with_server(aggregator=rule)
        )

    def _ask_policy(self, part: Round, scores: dict[str, Scores]) -> Decision:
        policy = self.guard.policy
        with timed(self.seconds, "policy"):
            decision = checked(policy.decide(case_of(part, scores, self.past)), policy.name, part.n)
        if decision.note:
            self.notes.append(decision.note)
        return decision

    def _too_few_to_score(self, part: Round, error: TooFewClientsError) -> Decision:
        """No client is scored or blamed; ``on_too_few`` determines the weights."""
        choice = self._choice()
        if choice == "error":
            raise error
        if choice == "keep_global":
            self.notes.append(f"{error}: nobody is scored, the global model stays as it is")
            return self._unscored(str(error), np.zeros(part.n))
        self.instead = choice
        self.notes.append(f"{error}: nobody is scored, the {choice} of those who are left is taken")
        decision = self._ask_policy(part, {})  # so that clients on parole still get weight 0
        return self._unscored(str(error), decision.weights)

    def _unscored(self, why: str, weights: NDArray[np.float64]) -> Decision:
        n = len(weights)
        return Decision(weights, np.zeros(n, dtype=bool), (f"not scored: {why}",) * n)

    def _out(self) -> int:
        """The number of clients out of the round before scoring: banned or unusable."""
        return self._elsewhere[1] + self.round.n - len(self.judged)

    @cached_property
    def _elsewhere(self) -> tuple[int, int]:
        here, present = self.round.client_ids, int((~self.barred).sum())
        return banned_elsewhere(self.guard.ledger, self.round.index, here, present)

    def _choice(self, lost: int = 0) -> OnTooFew:
        return chosen(self.guard.on_too_few, self._elsewhere[0] + self.round.n - len(self.judged) + lost)

    def _tell(self, name: str, fewer: int) -> None:
        if fewer:
            self.notes.append(f"{name} assumes {fewer} fewer malicious clients: that many are already out")

    def _aggregate(
        self, weights: NDArray[np.float64], plain: bool, wanted: bool
    ) -> tuple[Tensor, NDArray[np.float64], bool]:
        """The aggregate of the accepted clients, the weights, and whether a rule was applied."""
        guard = self.guard
        rule = guard.mean if plain else guard.aggregator
        if not wanted or not (weights > 0).any():
            return guard.mean(self.round, 0 * weights), weights, False
        lost = len(self.judged) - int((weights > 0).sum())

        def aggregated(fewer: int) -> Tensor:
            return self._apply(told(rule, fewer), weights)

        with timed(self.seconds, "aggregator"):
            if self.instead:
                return self._replaced(self.instead, weights)
            try:
                total, fewer = with_fewer(aggregated, lambda: self._out() + lost)
            except TooFewClientsError as error:
                choice = self._choice(lost)
                if choice == "error":
                    raise
                what = "global model stays as it is" if choice == "keep_global" else f"{choice} is taken"
                self.notes.append(f"{error}: the {what}")
                return self._replaced(choice, weights)
        self._tell(rule.name, fewer)
        return total, weights, True

    def _replaced(
        self, choice: str, weights: NDArray[np.float64]
    ) -> tuple[Tensor, NDArray[np.float64], bool]:
        """As :meth:`_aggregate`, with the mean, the median or the global model in place of the aggregator."""
        if choice != "keep_global":
            try:
                return self._apply(self.guard.instead(choice), weights), weights, True
            except TooFewClientsError as error:  # a stage needs more clients
                self.notes.append(f"{error}: the global model stays as it is")
        weights = 0 * weights
        return self.guard.mean(self.round, weights), weights, False

    def _apply(self, rule: Aggregator, weights: NDArray[np.float64]) -> Tensor:
        """The aggregate of the clients with positive weights, after all stages."""
        round = weighed(self.round, self.counted)
        total = rule(round, weights)
        return rule.finish(round, weights, total) if isinstance(rule, Staged) else total

    def _reasons(
        self, blamed: NDArray[np.bool_], decision: Decision
    ) -> tuple[dict[int, int | None], tuple[str, ...]]:
        """New bans (position → first round back, None for permanent), and a reason for every client."""
        index, policy, past = self.round.index, self.guard.policy, self.past
        bans = {int(self.judged[k]): until for k, until in decision.bans.items()}
        reasons = dict(zip(self.judged.tolist(), decision.reasons, strict=True))
        for i in np.flatnonzero(self.counted < 1).tolist():
            reasons[i] += said(self.guard.claim_limit)
        for i, (client, problem) in enumerate(zip(self.round.client_ids, self.round.problems, strict=True)):
            if self.barred[i]:
                record = past[client]
                reasons[i] = f"banned since round {record.banned_since}: {record.ban_reason}"
            elif problem is not None:
                reasons[i] = problem
                sanction = policy.sentence(client, index, past) if blamed[i] else None
                if sanction and sanction.text:
                    reasons[i] = f"{sanction.text}: {problem}"
                if sanction and sanction.ban:
                    bans[i] = sanction.until
        return bans, tuple(reasons[i] for i in range(self.round.n))

    def _all_suspects(self, decision: Decision) -> NDArray[np.bool_]:
        suspects = self.barred | ~self.round.usable
        suspects[self.judged] = decision.suspects
        return suspects

    def _restarts(self, scores: Mapping[str, Scores], decision: Decision) -> bool:
        """Whether a detector asks for the initial model, which the notes then say."""
        asking = [name for name, own in scores.items() if decision.restarts(own)]
        self.notes += [
            f"{name} asks to restart from the initial model, as this one is poisoned" for name in asking
        ]
        return bool(asking)

    def _outcome(
        self,
        total: Tensor,
        weights: NDArray[np.float64],
        scores: Mapping[str, Scores],
        decision: Decision,
        bans: Mapping[int, int | None],
        reasons: tuple[str, ...],
        restart: bool,
    ) -> Outcome:
        round, judged, names = self.round, self.judged, list(self.guard.detectors)
        banned = self.barred.copy()
        banned[list(bans)] = True
        unscored = np.where(round.usable | self.barred, np.nan, np.inf)
        nothing = np.full(len(judged), np.nan)
        values = {name: scores[name].values if name in scores else nothing for name in names}
        return Outcome(
            aggregate=total,
            weights=weights,
            suspects=self._all_suspects(decision),
            banned=banned,
            reasons=reasons,
            client_ids=round.client_ids,
            scores=combined(scores, judged, unscored),
            by_detector={name: filled(round.n, judged, v, unscored) for name, v in values.items()},
            info={name: scores[name].info if name in scores else {} for name in names},
            kept_global=not (weights > 0).any(),
            note="; ".join(self.notes),
            seconds=self.seconds,
            barred=self.barred,
            index=round.index,
            restart=restart,
            counted=self.counted,
        )


def case_of(part: Round, scores: Mapping[str, Scores], past: Ledger) -> PolicyInput:
    """The input of a policy for the clients that were scored."""

    def idle(position: int) -> bool:
        return not bool(part.updates.row(position).any())

    return PolicyInput(part.index, part.client_ids, scores, past, idle)


@contextmanager
def timed(table: dict[str, float], name: str) -> Iterator[None]:
    """Store the wall time of the block in ``table[name]``, even if the block raises."""
    start = time.perf_counter()
    try:
        yield
    finally:
        table[name] = time.perf_counter() - start
