"""The guard: detectors, then the policy, then the aggregator. Knows nothing of simulation."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .contracts.aggregator import Aggregator
from .contracts.detector import Detector
from .contracts.observer import Observer, notify
from .contracts.outcome import Outcome as Outcome
from .contracts.policy import Policy
from .contracts.round import Round
from .contracts.stage import Stage, Staged
from .core.errors import ParameterError, RoundError
from .core.ids import ClientId
from .core.restored import all_or_nothing, count
from .core.state import State
from .exchange.entries import Entries
from .judging.numbering import next_number, numbered
from .judging.parts import Spec, built, ledger_of, several
from .judging.too_few import OnTooFew, checked_choice
from .judging.verdict import Judging, Verdict, case_of
from .ledger.memory import Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Guard(Entries):
    """Scores every update, decides what each client may contribute, and only then aggregates.

    Methods are objects, names, or mappings of a name and parameters: ``Guard("krum", "ban")``.

    Args:
        detectors: one detector, several, or none.
        policy: what follows from the scores; "observe" without detectors, "exclude" with, if absent.
        aggregator: the aggregation rule; the weighted mean (FedAvg) if absent.
        ledger: a ledger to go on with; a fresh one in memory if absent.
        stages: what happens to updates before the aggregator and to the aggregate after it, in order.
        observers: told of every round once its state is committed; copies of the guard have none.
        on_too_few: what happens if fewer clients are left than a method needs, even when it is told of fewer
            malicious ones (by at most those who are out already: banned, unusable, excluded): "keep_global"
            lets the global model stay, "mean" or "median" takes the method's place, "error" refuses the
            round. If absent: "keep_global", but "error" for a round that lost nobody and was too small
            as it came. Nobody is scored or blamed where a detector has too few; the note says what was done.

    Raises:
        ParameterError: two detectors of the same name, a policy that cannot use a detector, one that counts
            more strikes than the ledger keeps, or something that is no method.
        RegistryError: an unknown name.
    """

    def __init__(
        self,
        detectors: Detector | Spec | Sequence[Detector | Spec] = (),
        policy: Policy | Spec | None = None,
        aggregator: Aggregator | Spec | None = None,
        ledger: Ledger | None = None,
        stages: Stage | Spec | Sequence[Stage | Spec] = (),
        observers: Sequence[Observer] = (),
        on_too_few: OnTooFew | None = None,
    ) -> None:
        items = several(detectors, "detectors", "detectors")
        names = [d.name for d in items]
        if len(set(names)) < len(names):
            raise ParameterError(f"two detectors of one guard have the same name: {', '.join(names)}")
        self.detectors: dict[str, Detector] = dict(zip(names, items, strict=True))
        default = "exclude" if items else "observe"
        self.policy: Policy = built(default if policy is None else policy, "policies", "policy")
        self.policy.check(self.detectors)
        self._stages = several(stages, "stages", "stages")
        #: Plain FedAvg.
        self.mean: Aggregator = built("mean", "aggregators", "aggregator")
        #: The aggregation rule in use: the aggregator behind what the stages do before it.
        self.aggregator: Aggregator = (
            self.mean
            if aggregator is None and not self._stages
            else self.instead("mean" if aggregator is None else aggregator)
        )
        self.ledger = ledger_of(ledger)
        if self.policy.lookback > self.ledger.keep:
            raise ParameterError(
                f"policy {self.policy.name} counts {self.policy.lookback} strikes of a client, the ledger "
                f"keeps {self.ledger.keep}; give the ledger keep={self.policy.lookback} or more"
            )
        self.observers = tuple(observers)
        self.on_too_few = checked_choice(on_too_few)
        self._last: int | None = None  # the last round that was judged

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
        from .contracts.registry import make_detector, make_policy

        policy = make_policy("evidence", rounds=rounds, alpha=alpha, clients=clients, rate=0.05)
        return cls(make_detector("recommended"), policy, ledger=ledger, observers=observers)

    def __repr__(self) -> str:
        parts = f"detectors={list(self.detectors.values())}, policy={self.policy}"
        return f"{type(self).__name__}({parts}, aggregation={self.aggregation()})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "observers": ()}  # a copy's rounds are nobody's news

    def instead(self, aggregator: Aggregator | Spec) -> Aggregator:
        """Another aggregator behind the guard's stages."""
        inner: Aggregator = built(aggregator, "aggregators", "aggregator")
        return Staged(self._stages, inner) if self._stages else inner

    def aggregation(self) -> list[Stage | Aggregator]:
        """The stages and the aggregator, in order."""
        return self.aggregator.parts() if isinstance(self.aggregator, Staged) else [self.aggregator]

    def banned(self, clients: Iterable[ClientId], round_index: int | None = None) -> list[ClientId]:
        """Those of ``clients`` who should not be asked to take part in this round; the next one if absent."""
        index = self.next_index if round_index is None else round_index
        return [c for c in clients if self.ledger.is_banned(c, index)]

    @property
    def next_index(self) -> int:
        """The number that a round gets whose ``index`` is left out."""
        return next_number(self._last, self.ledger)

    def process(self, round: Round, repeat: bool = False) -> Outcome:
        """Judge a round and aggregate what is left of it.

        Clients with unusable updates (NaN, Inf, absurd sample counts) are suspects, banned clients are
        ignored, and both are invisible to the detectors. The ledger and what the methods remember
        change only after everything has succeeded. A round without a number is the next one: after the last
        that this guard has judged, or that its ledger knows of if it has judged none. Several guards on one
        ledger have numbers of their own.

        Args:
            round: the updates.
            repeat: the round may have been judged before, as after a restart; its strikes count once.

        Raises:
            RoundError: its number does not follow, and it is no repeat.
            FedGuardError: the round does not fit a detector or the aggregator; nothing has changed. Nor
                has it after any other error, for example one in a detector's ``commit``.
        """
        return self._judge(round, repeat)

    def watch(self, round: Round, repeat: bool = False) -> Outcome:
        """Judge a round and remember it like :meth:`process`, but aggregate nothing (zeros come out)."""
        return self._judge(round, repeat, aggregate=False)

    def skip(self, round: Round, why: str, repeat: bool = False) -> Outcome:
        """Count a round in which nobody is to be scored: the global model stays.

        Whoever sent an unusable update is a suspect all the same, and earns what the policy says.

        Args:
            round: the updates.
            why: the reason, for the verdicts.
            repeat: see :meth:`process`.
        """
        return self._judge(round, repeat, aggregate=False, skip=why)

    def suspects(self, round: Round) -> NDArray[np.bool_]:
        """(n,) whom :meth:`process` would call a suspect; nothing is aggregated or remembered."""
        round = _a_round(round)
        return Judging(self, numbered(round, self._last, self.ledger, repeat=round.numbered)).suspects()

    def _judge(self, round: Round, repeat: bool, aggregate: bool = True, skip: str = "") -> Outcome:
        round = numbered(_a_round(round), self._last, self.ledger, repeat)
        judging = Judging(self, round)
        verdict = judging.verdict(aggregate, skip)
        self._commit(verdict)
        outcome = verdict.outcome.take(np.argsort(judging.order))
        notify(self.observers, round, outcome)
        return outcome

    def _commit(self, verdict: Verdict) -> None:
        before = self._methods_state()
        try:
            self._commit_methods(verdict)
            with self.ledger.transaction():
                self._write(verdict)
        except BaseException:  # all or nobody
            self._load_methods(before)
            raise
        self._last = verdict.round.index

    def _write(self, verdict: Verdict) -> None:
        index, outcome = verdict.round.index, verdict.outcome
        for i, client in enumerate(outcome.client_ids):
            if verdict.noted[i]:
                score, strike = float(outcome.scores[i]), bool(verdict.strikes[i])
                self.ledger.judge(client, index, score, strike, outcome.reasons[i])
        for i, until in verdict.bans.items():
            self.ledger.ban(outcome.client_ids[i], index, until, outcome.reasons[i])

    def _commit_methods(self, verdict: Verdict) -> None:
        round, part, decision, outcome = verdict.round, verdict.part, verdict.decision, verdict.outcome
        if part is not None:
            for name, detector in self.detectors.items():
                detector.commit(part, verdict.scores[name], decision)
            self.policy.commit(case_of(part, verdict.scores, verdict.past), decision)
        if verdict.unusable.any():
            unusable = [round.client_ids[i] for i in np.flatnonzero(verdict.unusable)]
            self.policy.commit_unusable(unusable, round.index)
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
        """The ledger, the number of the last round, and what all methods remember."""
        return {"ledger": self.ledger.state_dict(), "last": self._last, **self._methods_state()}

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
            last = state.get("last")  # earlier versions kept none
            self._last = None if last is None else count(last)


def _a_round(round: Any) -> Round:
    """Refuse what is no round (RoundError)."""
    if isinstance(round, Round):
        return round
    what = f"the class {round.__name__}" if inspect.isclass(round) else f"a {type(round).__name__}"
    raise RoundError(f"a guard judges a Round, got {what}; write guard.process(Round(updates, client_ids))")
