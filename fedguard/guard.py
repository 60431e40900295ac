"""The guard: detectors, then the policy, then the aggregator. Knows nothing of simulation."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import Tensor

from .aggregator import Aggregator
from .detector import Detector
from .entries import Entries
from .errors import ParameterError
from .ledger import Ledger
from .observer import Observer, notify
from .outcome import Outcome as Outcome
from .policy import Case, Decision, Policy, checked
from .restored import all_or_nothing
from .round import ClientId, Round, by_id
from .scores import Scores, combined, filled
from .stage import Stage, Staged
from .state import State

if TYPE_CHECKING:
    from numpy.typing import NDArray


class _Verdict(NamedTuple):
    """A judged round before it is committed."""

    round: Round
    part: Round | None  # the clients that were scored, None if there are none
    scores: Mapping[str, Scores]
    decision: Decision
    outcome: Outcome
    bans: Mapping[int, int | None]
    past: Ledger  # what was known of the round's clients when they were judged
    aggregated: bool  # whether the aggregate is one: somebody was let through, and it was wanted


class Guard(Entries):
    """Scores every update, decides what each client may contribute, and only then aggregates.

    Args:
        detectors: one detector, several, or none.
        policy: what follows from the scores; "observe" without detectors, "exclude" with, if absent.
        aggregator: the aggregation rule; the weighted mean (FedAvg) if absent.
        ledger: a ledger to go on with; a fresh one in memory if absent.
        stages: what happens to updates before the aggregator and to the aggregate after it, in order.
        observers: told of every round once its state is committed; copies of the guard have none.

    Raises:
        ParameterError: two detectors of the same name, a policy that cannot use a detector, or one that
            counts more strikes than the ledger keeps.
    """

    def __init__(
        self,
        detectors: Detector | Sequence[Detector] = (),
        policy: Policy | None = None,
        aggregator: Aggregator | None = None,
        ledger: Ledger | None = None,
        stages: Stage | Sequence[Stage] = (),
        observers: Sequence[Observer] = (),
    ) -> None:
        from .registry import make_aggregator, make_policy  # here: the registry knows all contracts

        items = [detectors] if isinstance(detectors, Detector) else list(detectors)
        names = [d.name for d in items]
        if len(set(names)) < len(names):
            raise ParameterError(f"two detectors of one guard have the same name: {', '.join(names)}")
        self.detectors: dict[str, Detector] = dict(zip(names, items, strict=True))
        self.policy = policy or make_policy("exclude" if items else "observe")
        self.policy.check(self.detectors)
        self._fedavg = make_aggregator("mean")
        steps = [stages] if isinstance(stages, Stage) else list(stages)
        inner = aggregator or self._fedavg
        #: The aggregation rule in use: the aggregator behind what the stages do before it.
        self.aggregator: Aggregator = Staged(steps, inner) if steps else inner
        self.ledger = Ledger() if ledger is None else ledger
        if self.policy.lookback > self.ledger.keep:
            raise ParameterError(
                f"policy {self.policy.name} counts {self.policy.lookback} strikes of a client, the ledger "
                f"keeps {self.ledger.keep}; give the ledger keep={self.policy.lookback} or more"
            )
        self.observers = tuple(observers)

    @classmethod
    def recommended(
        cls,
        rounds: int = 0,
        alpha: float = 0.01,
        clients: int = 1,
        ledger: Ledger | None = None,
        observers: Sequence[Observer] = (),
    ) -> Guard:
        """The guard to begin with: detector "recommended", policy "evidence", the weighted mean.

        Args:
            rounds: how many rounds to learn clean scores from; 0 if none is known to be clean.
            alpha: the chance that an honest client is ever banned, as the policy "evidence" promises it.
            clients: how many honest clients the promise covers together; 1 makes it one for each.
            ledger: a ledger to go on with; a fresh one in memory if absent.
            observers: told of every round once its state is committed.
        """
        from .registry import make_detector, make_policy

        policy = make_policy("evidence", rounds=rounds, alpha=alpha, clients=clients, rate=0.05)
        return cls(make_detector("recommended"), policy, ledger=ledger, observers=observers)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "observers": ()}  # a copy's rounds are nobody's news

    def aggregation(self) -> list[Stage | Aggregator]:
        """The stages and the aggregator, in order."""
        return self.aggregator.parts() if isinstance(self.aggregator, Staged) else [self.aggregator]

    def banned(self, clients: Iterable[ClientId], round_index: int) -> list[ClientId]:
        """Those of ``clients`` who should not be asked to take part in this round."""
        return [c for c in clients if self.ledger.is_banned(c, round_index)]

    def process(self, round: Round) -> Outcome:
        """Judge a round and aggregate what is left of it.

        Clients with unusable updates (NaN, Inf, absurd sample counts) are suspects, banned clients are
        ignored, and both are invisible to the detectors. The ledger and what the methods remember
        change only after everything has succeeded.

        Raises:
            FedGuardError: the round does not fit a detector or the aggregator; nothing has changed. Nor
                has it after any other error, for example one in a detector's ``commit``.
        """
        verdict, back = self._judge(round)
        self._commit(verdict)
        outcome = verdict.outcome.take(back)
        notify(self.observers, round, outcome)
        return outcome

    def watch(self, round: Round) -> Outcome:
        """Judge a round and remember it like :meth:`process`, but aggregate nothing (zeros come out)."""
        verdict, back = self._judge(round, aggregate=False)
        self._commit(verdict)
        outcome = verdict.outcome.take(back)
        notify(self.observers, round, outcome)
        return outcome

    def suspects(self, round: Round) -> NDArray[np.bool_]:
        """(n,) whom :meth:`process` would call a suspect; nothing is aggregated or remembered."""
        order, past = by_id(round.client_ids), self.ledger.view(round.client_ids)
        round, barred, judged, part = self._split(round.take(order), past)
        _, decision = self._decide(part, past, {})
        return _suspects(round, barred, judged, decision)[np.argsort(order)]

    def _judge(self, round: Round, aggregate: bool = True) -> tuple[_Verdict, NDArray[np.intp]]:
        """The verdict on the clients in the order of their ids, and where the caller has each of them.

        Sums and ties depend on the order of rows; in which order updates arrive must not.
        """
        order, past = by_id(round.client_ids), self.ledger.view(round.client_ids)
        round, barred, judged, part = self._split(round.take(order), past)
        seconds = dict.fromkeys((*self.detectors, "policy", "aggregator"), 0.0)
        scores, decision = self._decide(part, past, seconds)
        weights = filled(round.n, judged, decision.weights, 0.0)
        with _timed(seconds, "aggregator"):
            total = self._aggregate(round, weights if aggregate else 0 * weights, decision.plain)
        bans, reasons = self._reasons(round, past, barred, judged, decision)
        banned = barred.copy()
        banned[list(bans)] = True
        unscored = np.where(round.usable | barred, np.nan, np.inf)
        values = {name: scores[name].values if name in scores else np.zeros(0) for name in self.detectors}
        kept = not (weights > 0).any()
        outcome = Outcome(
            aggregate=total,
            weights=weights,
            suspects=_suspects(round, barred, judged, decision),
            banned=banned,
            reasons=reasons,
            client_ids=round.client_ids,
            scores=combined(scores, judged, unscored),
            by_detector={name: filled(round.n, judged, v, unscored) for name, v in values.items()},
            info={name: scores[name].info if name in scores else {} for name in self.detectors},
            kept_global=kept,
            note="every client was excluded: the global model stays as it is" if kept else "",
            seconds=seconds,
            barred=barred,
        )
        verdict = _Verdict(round, part, scores, decision, outcome, bans, past, aggregate and not kept)
        return verdict, np.argsort(order)

    def _split(
        self, round: Round, past: Ledger
    ) -> tuple[Round, NDArray[np.bool_], NDArray[np.intp], Round | None]:
        """The round with the rule in use, who is banned (mask), who can be judged, and a round of those."""
        round = round.with_server(aggregator=self.aggregator)
        barred = np.array([past.is_banned(c, round.index) for c in round.client_ids])
        judged = np.flatnonzero(round.usable & ~barred)
        return round, barred, judged, round.take(judged) if len(judged) else None

    def _aggregate(self, round: Round, weights: NDArray[np.float64], plain: bool) -> Tensor:
        """The aggregate of whom the policy lets through, after all stages; FedAvg if ``plain``."""
        if plain:
            return self._fedavg(round, weights)
        aggregate = self.aggregator(round, weights)
        if isinstance(self.aggregator, Staged):
            return self.aggregator.finish(round, weights, aggregate)
        return aggregate

    def _decide(
        self, part: Round | None, past: Ledger, seconds: dict[str, float]
    ) -> tuple[dict[str, Scores], Decision]:
        """Scores and decision for the clients that can be judged, if there are any."""
        scores: dict[str, Scores] = {}
        if part is None:
            return scores, Decision(np.zeros(0), np.zeros(0, dtype=bool), ())
        for name, detector in self.detectors.items():
            with _timed(seconds, name):
                scores[name] = detector(part)
        with _timed(seconds, "policy"):
            case = Case(part.index, part.client_ids, scores, past)
            return scores, checked(self.policy.decide(case), self.policy.name, part.n)

    def _reasons(
        self,
        round: Round,
        past: Ledger,
        barred: NDArray[np.bool_],
        judged: NDArray[np.intp],
        decision: Decision,
    ) -> tuple[dict[int, int | None], tuple[str, ...]]:
        """New bans (position → first round back, None: never), and a reason for every client."""
        bans = {int(judged[k]): until for k, until in decision.bans.items()}
        reasons = dict(zip(judged.tolist(), decision.reasons, strict=True))
        for i, (client, problem) in enumerate(zip(round.client_ids, round.problems, strict=True)):
            if barred[i]:
                record = past[client]
                reasons[i] = f"banned since round {record.banned_since}: {record.ban_reason}"
            elif problem is not None:
                sentence = self.policy.sentence(client, round.index, past)
                reasons[i] = f"{sentence.text}: {problem}" if sentence.text else problem
                if sentence.ban:
                    bans[i] = sentence.until
        return bans, tuple(reasons[i] for i in range(round.n))

    def _commit(self, verdict: _Verdict) -> None:
        before = self._methods_state()
        try:
            self._commit_methods(verdict)
            with self.ledger.transaction():
                self._write(verdict)
        except BaseException:  # all or nobody
            self._load_methods(before)
            raise

    def _write(self, verdict: _Verdict) -> None:
        index, outcome = verdict.round.index, verdict.outcome
        for i, client in enumerate(outcome.client_ids):
            if not verdict.past.is_banned(client, index):
                score, suspect = float(outcome.scores[i]), bool(outcome.suspects[i])
                self.ledger.judge(client, index, score, suspect, outcome.reasons[i])
        for i, until in verdict.bans.items():
            self.ledger.ban(outcome.client_ids[i], index, until, outcome.reasons[i])

    def _commit_methods(self, verdict: _Verdict) -> None:
        round, part, scores, decision, outcome = verdict[:5]
        if part is not None:
            for name, detector in self.detectors.items():
                detector.commit(part, scores[name], decision)
            self.policy.commit(Case(part.index, part.client_ids, scores, verdict.past), decision)
        if verdict.aggregated and not decision.plain:
            survivors = round.take(np.flatnonzero(outcome.weights > 0))
            self.aggregator.commit(survivors, outcome.aggregate)

    def _methods_state(self) -> State:
        return {
            "detectors": {name: d.state_dict() for name, d in self.detectors.items()},
            "policy": self.policy.state_dict(),
            "aggregator": self.aggregator.state_dict(),
        }

    def _load_methods(self, state: State) -> None:
        for name, detector in self.detectors.items():
            detector.load_state_dict(state["detectors"][name])
        self.policy.load_state_dict(state["policy"])
        self.aggregator.load_state_dict(state["aggregator"])

    def state_dict(self) -> State:
        """The ledger, and what detectors, policy, stages and aggregator remember."""
        return {"ledger": self.ledger.state_dict(), **self._methods_state()}

    def load_state_dict(self, state: State, keep_ledger: bool = False) -> None:
        """Go back to a state that ``state_dict`` returned.

        Args:
            state: the state.
            keep_ledger: leave the ledger as it is, because it is kept elsewhere and may be ahead.

        Raises:
            ParameterError: the state is of another guard, or does not fit; nothing has changed.
        """
        with all_or_nothing(*self.detectors.values(), self.policy, self.aggregator, self.ledger):
            if set(state["detectors"]) != set(self.detectors):
                raise ParameterError(
                    f"the state is of a guard with detectors {sorted(state['detectors'])}, "
                    f"this one has {sorted(self.detectors)}"
                )
            self._load_methods(state)
            if not keep_ledger:
                self.ledger.load_state_dict(state["ledger"])


class _timed:  # noqa: N801 - reads as a statement
    """Add the wall time of a block to a table."""

    def __init__(self, table: dict[str, float], name: str) -> None:
        self.table, self.name = table, name

    def __enter__(self) -> None:
        self.start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.table[self.name] = time.perf_counter() - self.start


def _suspects(
    round: Round, barred: NDArray[np.bool_], judged: NDArray[np.intp], decision: Decision
) -> NDArray[np.bool_]:
    suspects = barred | ~round.usable
    suspects[judged] = decision.suspects
    return suspects
