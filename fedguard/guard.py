"""The guard: detectors, then the policy, then the aggregator. It does not depend on simulation."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .contracts.aggregator import Aggregator
from .contracts.detector import Detector
from .contracts.observer import Observer, notify, notify_refused
from .contracts.outcome import Outcome as Outcome
from .contracts.policy import Policy
from .contracts.round import Round
from .contracts.stage import Stage, Staged
from .core.devices import resolve_device
from .core.errors import ParameterError, RoundError
from .core.ids import ClientId
from .core.restored import all_or_nothing, count
from .core.state import State
from .exchange.entries import Entries
from .judging.claims import checked_limit
from .judging.numbering import next_number, numbered
from .judging.parts import Spec, built, ledger_of, several
from .judging.too_few import OnTooFew, checked_choice
from .judging.verdict import Judging, Verdict, case_of
from .ledger.memory import Ledger

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Guard(Entries):
    """Scores every update, decides what each client may contribute, and only then aggregates.

    A method is an object, a name, or a mapping of a name and parameters: ``Guard("krum", "ban")``.

    If fewer clients are left than a method needs, the guard first lowers the method's ``num_malicious``, by
    at most the number of clients already out of the round (banned, unusable or excluded). If that does not
    help, ``on_too_few`` applies. If a detector has too few clients, no client is scored or blamed. The
    outcome's note says what was done.

    Args:
        detectors: one detector, several, or none.
        policy: turns scores into a decision; by default "exclude" with detectors, "observe" without.
        aggregator: the aggregation rule; the weighted mean (FedAvg) by default.
        ledger: an existing ledger; by default a new one in memory.
        stages: transform updates before the aggregator, and the aggregate after it, in order.
        observers: notified of every round after its state is committed. Copies of a guard have none.
        on_too_few: "keep_global" keeps the global model, "mean" and "median" replace the method for this
            round, "error" rejects the round. By default "keep_global"; but "error" if no client is out, since
            the round was too small from the start.
        claim_limit: no client weighs more than if it had claimed this multiple of the median that accepted
            clients claim; None trusts all claims. It is the stage ``count_clipping``, but also works if
            somebody else aggregates, as Flower's strategies do.
        device: where to judge: each round is moved there first, for example to "cpu" for a method that
            cannot work on a GPU. By default a round stays on the device of its updates.

    Raises:
        ParameterError: two detectors have the same name, the policy cannot use a detector, the policy counts
            more strikes than the ledger keeps, an argument is not a method, or the device is not there.
        RegistryError: a name is unknown.

    Example:
        >>> import numpy as np
        >>> from fedguard import Guard, Round
        >>> updates = np.random.default_rng(0).normal(0, 0.01, (8, 100))
        >>> updates[0] *= -40  # client "a" attacks
        >>> guard = Guard("krum", {"name": "exclude", "rule": "mad"})
        >>> outcome = guard.process(Round(updates, client_ids="abcdefgh"))
        >>> outcome.suspects.tolist()
        [True, False, False, False, False, False, False, False]
        >>> outcome.aggregate.shape  # add it to the global model
        torch.Size([100])
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
        device: str | None = None,
        claim_limit: float | None = None,
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
        #: The aggregation rule in use: the stages, then the aggregator.
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
        self.claim_limit = checked_limit(claim_limit)
        self.device = None if device is None else resolve_device(device)
        self._last: int | None = None  # the number of the last judged round

    @classmethod
    def recommended(
        cls,
        rounds: int = 0,
        alpha: float = 0.01,
        clients: int = 1,
        ledger: Ledger | None = None,
        observers: Sequence[Observer] = (),
    ) -> Guard:
        """A guard to start with: detector "recommended", policy "evidence", the weighted mean.

        A claim of more than three times the median of samples counts as three times (``claim_limit``).

        Args:
            rounds: how many rounds to learn clean scores from; 0 if no round is known to be clean.
            alpha: bound on the probability that an honest client is ever banned, see the policy "evidence".
            clients: how many honest clients ``alpha`` covers jointly; 1 makes it a bound per client.
            ledger: an existing ledger; by default a new one in memory.
            observers: notified of every round after its state is committed.
        """
        from .contracts.registry import make_detector, make_policy

        policy = make_policy("evidence", rounds=rounds, alpha=alpha, clients=clients, rate=0.05)
        detector = make_detector("recommended")
        return cls(detector, policy, ledger=ledger, observers=observers, claim_limit=3.0)

    def __repr__(self) -> str:
        parts = f"detectors={list(self.detectors.values())}, policy={self.policy}"
        return f"{type(self).__name__}({parts}, aggregation={self.aggregation()})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "observers": ()}  # copies do not notify observers

    def instead(self, aggregator: Aggregator | Spec) -> Aggregator:
        """Another aggregator behind the guard's stages."""
        inner: Aggregator = built(aggregator, "aggregators", "aggregator")
        return Staged(self._stages, inner) if self._stages else inner

    def aggregation(self) -> list[Stage | Aggregator]:
        """The stages and the aggregator, in order."""
        return self.aggregator.parts() if isinstance(self.aggregator, Staged) else [self.aggregator]

    def banned(self, clients: Iterable[ClientId], round_index: int | None = None) -> list[ClientId]:
        """Those of ``clients`` that are banned in a round (by default the next one): do not sample them."""
        index = self.next_index if round_index is None else round_index
        return [c for c in clients if self.ledger.is_banned(c, index)]

    @property
    def next_index(self) -> int:
        """The number that the guard gives to a round without ``index``."""
        return next_number(self._last, self.ledger)

    def process(self, round: Round, repeat: bool = False) -> Outcome:
        """Judge a round and aggregate the accepted updates.

        Clients with unusable updates (NaN, Inf, absurd sample counts) are suspects. Banned clients are
        ignored. Detectors see neither. The ledger and the state of the methods change only after every step
        has succeeded. A round without a number gets the one after the last round that this guard has judged;
        if it has judged none, the one after the last round in its ledger. Guards that share a ledger number
        their rounds independently.

        Args:
            round: the updates.
            repeat: the round may have been judged before, for example before a restart; its strikes count
                once.

        Raises:
            RoundError: the round's number is not above the last one, and ``repeat`` is False.
            FedGuardError: the round does not fit a detector or the aggregator. After this or any other
                error, for example one in a detector's ``commit``, nothing has changed.
        """
        return self._judge(round, repeat)

    def watch(self, round: Round, repeat: bool = False) -> Outcome:
        """Judge and commit a round like :meth:`process`, but skip the aggregation: the aggregate is zero."""
        return self._judge(round, repeat, aggregate=False)

    def skip(self, round: Round, why: str, repeat: bool = False) -> Outcome:
        """Count a round without scoring it; the global model stays.

        A client that sent an unusable update is still a suspect, and the policy's sanctions apply to it.

        Args:
            round: the updates.
            why: the reason, for the verdicts.
            repeat: see :meth:`process`.
        """
        return self._judge(round, repeat, aggregate=False, skip=why)

    def suspects(self, round: Round) -> NDArray[np.bool_]:
        """(n,) the clients that :meth:`process` would suspect; aggregates and commits nothing."""
        round = self._here(round)
        return Judging(self, numbered(round, self._last, self.ledger, repeat=round.numbered)).suspects()

    def _judge(self, round: Round, repeat: bool, aggregate: bool = True, skip: str = "") -> Outcome:
        round = self._here(round)
        try:
            round = numbered(round, self._last, self.ledger, repeat)
            judging = Judging(self, round)
            verdict = judging.verdict(aggregate, skip)
            self._commit(verdict)
        except Exception as error:
            notify_refused(self.observers, round, error)
            raise
        outcome = verdict.outcome.take(np.argsort(judging.order))
        notify(self.observers, round, outcome)
        return outcome

    def _here(self, round: Any) -> Round:
        """The round on the guard's device; as it is without one."""
        checked = _a_round(round)
        return checked if self.device is None else checked.to(self.device)

    def _commit(self, verdict: Verdict) -> None:
        before = self._methods_state()
        try:
            self._commit_methods(verdict)
            with self.ledger.transaction():
                self._write(verdict)
        except BaseException:  # all methods commit, or none
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
        """The ledger, the number of the last round, and the state of all methods."""
        return {"ledger": self.ledger.state_dict(), "last": self._last, **self._methods_state()}

    def load_state_dict(self, state: State, keep_ledger: bool = False) -> None:
        """Restore a state that ``state_dict`` returned.

        Args:
            state: the state.
            keep_ledger: leave the ledger unchanged, because it is stored elsewhere and may be newer.

        Raises:
            ParameterError: the state belongs to another guard, or does not fit; nothing has changed.
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
            last = state.get("last")  # states of earlier versions lack it
            self._last = None if last is None else count(last)


def _a_round(round: Any) -> Round:
    """The argument if it is a round; raises RoundError otherwise."""
    if isinstance(round, Round):
        return round
    what = f"the class {round.__name__}" if inspect.isclass(round) else f"a {type(round).__name__}"
    raise RoundError(f"a guard judges a Round, got {what}; write guard.process(Round(updates, client_ids))")
