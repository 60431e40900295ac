"""From a round with a number to a verdict on it; the guard remembers nothing here."""

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
from .parts import Spec
from .too_few import OnTooFew, banned_elsewhere, chosen, told, with_fewer

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WholeGuard(AnyGuard, Protocol):
    """What judging asks of a guard beyond the usual."""

    mean: Aggregator
    on_too_few: OnTooFew | None

    def instead(self, aggregator: Aggregator | Spec) -> Aggregator:
        """The guard's fallback for one round."""


#: What an outcome says if nobody is let through.
KEPT = "every client was excluded: the global model stays as it is"
#: What it says if there is no usable update at all: rather the server's mistake than everybody's.
ALL_UNUSABLE = "no update can be used: nobody gets a strike, and the global model stays as it is"


class Verdict(NamedTuple):
    """A judged round before it is committed; clients are in the order of their ids.

    Attributes:
        round: the round.
        part: the clients that were scored, None if there are none.
        scores: what each detector said of them.
        decision: what the policy said of them.
        outcome: what the caller is told.
        bans: position → first round back, None for good.
        past: what was known of the round's clients when they were judged.
        aggregated: whether the aggregate is one: somebody was let through, and it was wanted.
        noted: (n,) bool, whose verdict goes into the ledger.
        strikes: (n,) bool, whose suspicion the ledger counts.
        unusable: (n,) bool, whose unusable update is held against them.
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
    """The way of one round through a guard.

    Sums and ties depend on the order of rows; in which order updates arrive must not. So clients are judged
    in the order of their ids.

    Args:
        guard: whose methods and ledger are asked.
        round: has its number.

    Attributes:
        order: where the caller has the clients that are judged first, second and so on.
        barred: (n,) bool, whose ban is in force.
        judged: the positions of those who can be judged.
        part: a round of those; None if there are none.
        seconds: wall time by part.
        notes: what the outcome will say.
    """

    def __init__(self, guard: WholeGuard, round: Round) -> None:
        self.guard = guard
        self.order = np.array(by_id(round.client_ids), dtype=np.intp)
        self.past = guard.ledger.view(round.client_ids)
        self.round = round.take(self.order).with_server(aggregator=guard.aggregator)
        self.barred = np.array([self.past.is_banned(c, round.index) for c in self.round.client_ids])
        self.judged = np.flatnonzero(self.round.usable & ~self.barred)
        self.part = self.round.take(self.judged) if len(self.judged) else None
        self.seconds = dict.fromkeys((*guard.detectors, "policy", "aggregator"), 0.0)
        self.notes: list[str] = []
        #: The rule that takes the aggregator's place, if detectors cannot score so few.
        self.instead = ""

    def verdict(self, aggregate: bool = True, skip: str = "") -> Verdict:
        """What the guard says.

        Args:
            aggregate: False leaves out the aggregation.
            skip: why nobody is to be scored; then nobody is, and nobody contributes.

        Raises:
            FedGuardError: the round does not fit a detector or the aggregator.
        """
        scores, decision, scored = self._opinion(skip)
        weights = filled(self.round.n, self.judged, decision.weights, 0.0)
        total, weights, applied = self._aggregate(weights, decision.plain, aggregate)
        blamed = ~self.round.usable & ~self.barred & (len(self.judged) > 0)
        bans, reasons = self._reasons(blamed, decision)
        strikes = blamed.copy()
        strikes[self.judged] = decision.suspects if decision.strikes is None else decision.strikes
        noted = blamed.copy()
        noted[self.judged] = scored
        if not (weights > 0).any() and not any("stays as it is" in note for note in self.notes):
            self.notes.append(KEPT if len(self.judged) or self.barred.all() else ALL_UNUSABLE)
        outcome = self._outcome(total, weights, scores, decision, bans, reasons)
        part = self.part if scored else None
        return Verdict(
            self.round, part, scores, decision, outcome, bans, self.past, applied, noted, strikes, blamed
        )

    def suspects(self) -> NDArray[np.bool_]:
        """(n,) whom the verdict would call suspects; nothing is aggregated."""
        return self._all_suspects(self._opinion()[1])[np.argsort(self.order)]

    def _opinion(self, skip: str = "") -> tuple[dict[str, Scores], Decision, bool]:
        """Scores, decision, and whether those that can be judged were scored."""
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
        """Nobody is scored or blamed; who contributes is what ``on_too_few`` says."""
        choice = self._choice()
        if choice == "error":
            raise error
        if choice == "keep_global":
            self.notes.append(f"{error}: nobody is scored, the global model stays as it is")
            return self._unscored(str(error), np.zeros(part.n))
        self.instead = choice
        self.notes.append(f"{error}: nobody is scored, the {choice} of those who are left is taken")
        decision = self._ask_policy(part, {})  # a client on parole contributes nothing here, either
        return self._unscored(str(error), decision.weights)

    def _unscored(self, why: str, weights: NDArray[np.float64]) -> Decision:
        n = len(weights)
        return Decision(weights, np.zeros(n, dtype=bool), (f"not scored: {why}",) * n)

    def _out(self) -> int:
        """How many clients are out of the round before anybody is scored: banned, or unusable."""
        return self._elsewhere[1] + self.round.n - len(self.judged)

    @cached_property
    def _elsewhere(self) -> tuple[int, int]:
        here, present = self.round.client_ids, int((~self.barred).sum())
        return banned_elsewhere(self.guard.ledger, self.round.index, here, present)

    def _choice(self, lost: int = 0) -> OnTooFew:
        return chosen(self.guard.on_too_few, self._elsewhere[0] + self.round.n - len(self.judged) + lost)

    def _tell(self, name: str, fewer: int) -> None:
        if fewer:
            self.notes.append(f"{name} counts on {fewer} malicious clients fewer: so many are out already")

    def _aggregate(
        self, weights: NDArray[np.float64], plain: bool, wanted: bool
    ) -> tuple[Tensor, NDArray[np.float64], bool]:
        """The aggregate of whom the policy lets through, their weights, and whether it is one."""
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
        """What comes out if the mean, the median or nothing takes the aggregator's place."""
        if choice != "keep_global":
            try:
                return self._apply(self.guard.instead(choice), weights), weights, True
            except TooFewClientsError as error:  # a stage needs more, too
                self.notes.append(f"{error}: the global model stays as it is")
        weights = 0 * weights
        return self.guard.mean(self.round, weights), weights, False

    def _apply(self, rule: Aggregator, weights: NDArray[np.float64]) -> Tensor:
        """What a rule makes of those with weight, after all stages."""
        total = rule(self.round, weights)
        return rule.finish(self.round, weights, total) if isinstance(rule, Staged) else total

    def _reasons(
        self, blamed: NDArray[np.bool_], decision: Decision
    ) -> tuple[dict[int, int | None], tuple[str, ...]]:
        """New bans (position → first round back, None: never), and a reason for every client."""
        index, policy, past = self.round.index, self.guard.policy, self.past
        bans = {int(self.judged[k]): until for k, until in decision.bans.items()}
        reasons = dict(zip(self.judged.tolist(), decision.reasons, strict=True))
        for i, (client, problem) in enumerate(zip(self.round.client_ids, self.round.problems, strict=True)):
            if self.barred[i]:
                record = past[client]
                reasons[i] = f"banned since round {record.banned_since}: {record.ban_reason}"
            elif problem is not None:
                reasons[i] = problem
                sentence = policy.sentence(client, index, past) if blamed[i] else None
                if sentence and sentence.text:
                    reasons[i] = f"{sentence.text}: {problem}"
                if sentence and sentence.ban:
                    bans[i] = sentence.until
        return bans, tuple(reasons[i] for i in range(self.round.n))

    def _all_suspects(self, decision: Decision) -> NDArray[np.bool_]:
        suspects = self.barred | ~self.round.usable
        suspects[self.judged] = decision.suspects
        return suspects

    def _outcome(
        self,
        total: Tensor,
        weights: NDArray[np.float64],
        scores: Mapping[str, Scores],
        decision: Decision,
        bans: Mapping[int, int | None],
        reasons: tuple[str, ...],
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
        )


def case_of(part: Round, scores: Mapping[str, Scores], past: Ledger) -> PolicyInput:
    """What a policy may look at of the clients that were scored."""

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
