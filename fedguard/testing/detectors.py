"""The detector contract as checks."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..aggregators.mean import Mean
from ..contracts.detector import Detector
from ..contracts.policy import Policy
from ..contracts.registry import detectors, policies
from ..contracts.round import Round
from ..contracts.scores import Scores
from ..contracts.server import Server
from ..core.errors import FedGuardError, NeedError, ParameterError
from ..core.state import pack, unpack
from ..geometry.updates import Updates
from ..guard import Guard
from .core import Check, Report, Untouched, carded, check_contract, documented, require, resolve
from .cost import measure_cost
from .federation import IDS, N, federation, fresh
from .plants import PLANTS


@dataclass(frozen=True)
class Case:
    """A detector class and its parameters for the checks."""

    cls: type[Detector]
    params: Mapping[str, Any]

    def make(self, **more: Any) -> Detector:
        """Return a fresh detector."""
        return self.cls(**{**self.params, **more})

    def rounds(self) -> list[Round]:
        """Return three rounds of a small federation, without cached geometry."""
        return [fresh(round) for round in federation()]


def check_detector(
    method: type[Detector] | str, params: Mapping[str, Any] | None = None, cost: bool = False
) -> Report:
    """Run all contract checks on a detector.

    Args:
        method: the class, a registered name, or "module:Class".
        params: its parameters; by default, the class's ``check_with``.
        cost: also measure time and memory on n = 100 clients and d = 100,000 parameters.
    """
    report = check_contract(method, detectors, params, Case, CHECKS)
    if not cost:
        return report
    detector = resolve(method, detectors)(**report.params)
    return dataclasses.replace(report, results=(*report.results, measure_cost(detector)))


def _same(a: Scores, b: Scores, what: str) -> None:
    for name in ("values", "suspects", "weights"):
        one, other = getattr(a, name), getattr(b, name)
        alike = (one is None) == (other is None) and (one is None or one.tolist() == other.tolist())
        require(alike, f"{what}: the {name} differ")


def _well_formed(scores: Scores, n: int) -> None:
    require(scores.values.shape == (n,), f"scores of shape {scores.values.shape} for {n} clients")
    require(not np.isnan(scores.values).any(), "a score is NaN")
    require(scores.suspects is None or scores.reason, "it names suspects without a `Scores.reason`")
    if scores.weights is not None:
        require(((scores.weights >= 0) & (scores.weights <= 1)).all(), "weights are not in [0, 1]")
    require(
        all(isinstance(v, float) for v in scores.info.values()), "`info` holds values that are not floats"
    )


def card(case: Case) -> None:
    """The class has a complete card and docstring. Document every parameter, and name the source."""
    carded(case.cls)
    documented(case.cls)


def one_number_per_client(case: Case) -> None:
    """Every round gives one float64 score per client. Return an (n,) array or Scores."""
    detector = case.make()
    for round in case.rounds():
        scores = detector(round)
        _well_formed(scores, N)
        require((scores.weights is not None) == detector.gives_weights, "`gives_weights` is wrong")
        detector.commit(round, scores)


def permutation(case: Case) -> None:
    """Clients in another order get the same scores. Key history and ties by client id."""
    rounds, detector = case.rounds(), case.make()
    detector.commit(rounds[0], detector(rounds[0]))
    order = np.random.default_rng(0).permutation(N)
    scores, moved = detector(rounds[1]), detector(fresh(rounds[1]).take(order))
    near = np.isclose(moved.values, scores.values[order], rtol=1e-4, atol=1e-6)
    require(near.all() or np.array_equal(moved.values, scores.values[order]), "scores depend on the order")
    if scores.suspects is not None and moved.suspects is not None:
        require(moved.suspects.tolist() == scores.suspects[order].tolist(), "other clients became suspects")


def purity(case: Case) -> None:
    """Scoring changes nothing and is repeatable. Keep memory in Scores.memory and commit()."""
    rounds, detector = case.rounds(), case.make()
    detector.commit(rounds[0], detector(rounds[0]))
    round, state = rounds[1], pack(detector.state_dict())
    server = round.server
    if server is None or server.model is None or server.validation is None:
        raise AssertionError("the federation of the checks is incomplete")
    model = {f"model {name}": value for name, value in server.model.state_dict().items()}
    given = Untouched(
        updates=round.updates.matrix,
        counts=round.num_examples,
        global_model=round.global_params,
        validation=server.validation.inputs,
        **model,
    )
    first = detector(round)
    _same(detector(round), first, "the same round scored twice")
    given.verify()
    require(
        pack(detector.state_dict()) == state, "scoring changed the detector's state; that is for commit()"
    )


def seed_purity(case: Case) -> None:
    """Two fresh detectors give bit-identical scores. Draw from round.server.generator(purpose, …)."""
    logs = []
    for _ in range(2):
        detector, log = case.make(), []
        for round in case.rounds():
            log.append(detector(round))
            detector.commit(round, log[-1])
        logs.append(log)
    for a, b in zip(*logs, strict=True):
        _same(a, b, "the same rounds, a fresh detector")


def state_round_trip(case: Case) -> None:
    """state_dict survives packing. Keep tensors and JSON values in it; lists of pairs for client ids."""
    rounds, detector, restored = case.rounds(), case.make(), case.make()
    for round in rounds[:2]:
        detector.commit(round, detector(round))
    restored.load_state_dict(unpack(pack(detector.state_dict())))
    _same(restored(rounds[2]), detector(rounds[2]), "after loading a packed state")
    require(pack(restored.state_dict()) == pack(detector.state_dict()), "the loaded state is different")


def two_federations(case: Case) -> None:
    """Two federations do not affect each other. Keep state in the instance, never in the class or module."""
    other = [r.with_updates(-0.5 * r.updates.matrix.flip(0)) for r in case.rounds()]
    together = (case.make(), case.make())
    for rounds in zip(case.rounds(), other, strict=True):
        for detector, round in zip(together, rounds, strict=True):
            detector.commit(round, detector(round))
    states = [pack(detector.state_dict()) for detector in together]
    for state, sequence in zip(states, (case.rounds(), other), strict=True):
        alone = case.make()
        for round in sequence:
            alone.commit(round, alone(round))
        require(pack(alone.state_dict()) == state, "its state depends on another federation")


def join_and_leave(case: Case) -> None:
    """Clients may leave, join and change names. Look histories up by id, and expect missing ones."""
    detector = case.make()
    for round, who in zip(
        case.rounds(), ([0, 1, 2, 3, 4, 5], [1, 7, 3, 0, 4, 6], [6, 5, 4, 3, 2]), strict=True
    ):
        part = round.take(who)
        scores = detector(part)
        _well_formed(scores, len(who))
        detector.commit(part, scores)
    renamed = dataclasses.replace(case.rounds()[2], client_ids=tuple(f"new {i}" for i in range(N)))
    _well_formed(detector(renamed), N)


def equal_updates(case: Case) -> None:
    """Clients that send the same get the same score. Remove rounding errors before you compare."""
    round = case.rounds()[0]
    matrix = round.updates.matrix.clone()
    matrix[6] = matrix[1]
    same = np.ones(N) * 30
    scores = case.make()(dataclasses.replace(round, updates=Updates(matrix), num_examples=same))
    near = math.isclose(scores.values[6], scores.values[1], rel_tol=1e-4, abs_tol=1e-6)
    require(near, f"they got {scores.values[1]:g} and {scores.values[6]:g}")


def degenerate(case: Case) -> None:
    """Scores of equal, zero and huge updates are never NaN. Guard divisions; use +Inf, not NaN."""
    for kind in ("all the same", "all zero", "one zero", "huge"):
        matrix = federation()[0].updates.matrix.clone()
        if kind == "all the same":
            matrix[:] = matrix[0]
        elif kind == "all zero":
            matrix.zero_()
        elif kind == "one zero":
            matrix[2] = 0
        else:
            matrix[4] = 3e38 * matrix[4].sign()
        detector = case.make()
        for index in range(3):
            round = dataclasses.replace(federation()[0], updates=Updates(matrix.clone()), index=index)
            try:
                scores = detector(round)
                _well_formed(scores, N)
                detector.commit(round, scores)
            except (AssertionError, FedGuardError) as error:
                raise AssertionError(f"{kind}, round {index}: {error}") from None


def non_finite(case: Case) -> None:
    """NaN and Inf rows are suspects with +Inf, without effect on others. Override `score`, not __call__."""
    for bad in (math.nan, math.inf):
        round = case.rounds()[0]
        matrix = round.updates.matrix.clone()
        matrix[3, 5] = bad
        rest = [i for i in range(N) if i != 3]
        scores = case.make()(round.with_updates(matrix))
        expected = case.make()(case.rounds()[0].take(rest))
        require(scores.values[3] == math.inf, "the client with the broken update has no score of +Inf")
        require(np.allclose(scores.values[rest], expected.values, rtol=1e-9), "the others' scores changed")


def small_rounds(case: Case) -> None:
    """Rounds of 1 to 4 clients are scored or refused with a typed error. Declare min_clients()."""
    detector = case.make()
    for n in (1, 2, 3, 4):
        round = case.rounds()[0].take(range(n))
        try:
            scores = detector(round)
        except FedGuardError as error:
            require(
                n < detector.min_clients(),
                f"{n} clients were refused, but min_clients() allows them: {error}",
            )
        else:
            require(n >= detector.min_clients(), f"{n} clients were scored below min_clients()")
            _well_formed(scores, n)


def absurd_numbers(case: Case) -> None:
    """It refuses num_malicious below 0 or as large as the number of clients. Check num_malicious."""
    if "num_malicious" not in inspect.signature(case.cls).parameters:
        return
    for wrong in (N, -1):
        try:
            case.make(num_malicious=wrong)(case.rounds()[0])
        except FedGuardError:
            continue
        raise AssertionError(f"num_malicious={wrong} was accepted for {N} clients")


def declared_needs(case: Case) -> None:
    """It uses only what it declares in `needs`. Declare what you use, and use nothing else."""
    detector, round = case.make(), case.rounds()[0]
    owned = round.server or Server()
    undeclared = {"model", "validation", "root", "training"} - detector.needs
    server = dataclasses.replace(owned, **dict.fromkeys(undeclared))  # type: ignore[arg-type]
    params = round.global_params if "global_params" in detector.needs else None
    bare = dataclasses.replace(round, server=server, global_params=params)
    try:
        _well_formed(detector(bare), N)
    except (AttributeError, TypeError, NeedError) as error:
        raise AssertionError(
            f"with only {sorted(detector.needs) or 'bare updates'} it fails: {error}"
        ) from None
    for need in detector.needs:
        try:
            detector(_without(round, need))
        except NeedError:
            continue
        raise AssertionError(f"a missing {need} is not named by a NeedError")


def _without(round: Round, need: str) -> Round:
    if need == "global_params":
        return dataclasses.replace(round, global_params=None)
    return round.with_server(**{need: None})


def planted_attack(case: Case) -> None:
    """A planted attack gets the highest scores, as higher is more suspicious. Flip the sign if needed."""
    detector = case.make(**case.cls.check_plant_with)
    rounds = case.rounds()
    for past in rounds[: case.cls.warm_up]:
        detector.commit(past, detector(past))
    round = rounds[case.cls.warm_up]
    matrix = round.updates.matrix.clone()
    bad = PLANTS[case.cls.plant](matrix)
    scores = detector(round.with_updates(matrix))
    good = [i for i in range(N) if i not in bad]
    low, high = scores.values[bad].min(), scores.values[good].max()
    require(low > high, f"the planted client scores {low:g}, an honest one {high:g}")
    require(scores.suspects is None or scores.suspects[bad].all(), "the planted client is not a suspect")


def every_policy(case: Case) -> None:
    """It works in a guard under every policy that accepts it. The message says which policy failed."""
    native = case.make()(case.rounds()[0]).suspects is not None
    rule: Any = "native" if native else {"name": "top", "count": 2}
    for name in policies.names():
        detector = case.make()
        try:
            guard = Guard(detector, _policy(name, rule), Mean())
        except ParameterError:
            continue
        for round in case.rounds()[:2]:
            if N - len(guard.banned(IDS, round.index)) < detector.min_clients():
                break
            outcome = guard.process(round)
            require(outcome.aggregate.isfinite().all(), f"policy {name}: the aggregate is not finite")
            require(all(outcome.reasons), f"policy {name}: a client has no reason")
        unpack(pack(guard.state_dict()))


def _policy(name: str, rule: Any) -> Policy:
    """Return a policy by name; one that wraps another passes it the same rule."""
    inner = {"policy": {"name": "exclude", "rule": rule}}
    wraps = "policy" in inspect.signature(policies.get(name)).parameters
    return policies.make(name, rule=rule, **(inner if wraps else {}))


CHECKS: dict[str, Check] = {
    "card and docstring": card,
    "one number per client": one_number_per_client,
    "order of clients": permutation,
    "scoring is pure": purity,
    "same seed, same bits": seed_purity,
    "state round trip": state_round_trip,
    "two federations": two_federations,
    "clients come and go": join_and_leave,
    "equal updates": equal_updates,
    "degenerate updates": degenerate,
    "NaN and Inf rows": non_finite,
    "small rounds": small_rounds,
    "absurd num_malicious": absurd_numbers,
    "declared needs": declared_needs,
    "planted attack on top": planted_attack,
    "every policy": every_policy,
}
