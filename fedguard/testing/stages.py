"""The stage contract as checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..aggregators.median import Median
from ..contracts.registry import stages
from ..contracts.round import Round
from ..contracts.stage import Stage, Staged
from ..core.state import pack, unpack
from ..guard import Guard
from .core import Check, Report, Untouched, carded, check_contract, documented, require
from .federation import N, federation, fresh


@dataclass(frozen=True)
class Case:
    """A stage class and its parameters for the checks."""

    cls: type[Stage]
    params: Mapping[str, Any]

    def make(self) -> Stage:
        """Return a fresh stage."""
        return self.cls(**self.params)

    def round(self, index: int = 0) -> Round:
        """Return a round of eight clients, with everything that a server may own."""
        return fresh(federation()[index])

    def aggregate(self, round: Round) -> torch.Tensor:
        """Aggregate a round with this stage and the median."""
        rule, everybody = Staged([self.make()], Median()), np.ones(round.n)
        return rule.finish(round, everybody, rule.aggregate(round, everybody))


def check_stage(method: type[Stage] | str, params: Mapping[str, Any] | None = None) -> Report:
    """Run all contract checks on a stage; ``params`` default to the class's ``check_with``."""
    return check_contract(method, stages, params, Case, CHECKS)


def card(case: Case) -> None:
    """The class has a complete card and docstring. Document every parameter, and name the source."""
    carded(case.cls)
    documented(case.cls)


def works_in_a_guard(case: Case) -> None:
    """Three rounds in a guard give finite aggregates. Return finite updates from before() and after()."""
    guard = Guard(aggregator=Median(), stages=case.make())
    for index in range(3):
        require(guard.process(case.round(index)).aggregate.isfinite().all(), "an aggregate is not finite")


def purity(case: Case) -> None:
    """It changes none of its inputs, and repeats its result. Draw from round.server.generator(…)."""
    round = case.round()
    given = Untouched(
        updates=round.updates.matrix, counts=round.num_examples, global_model=round.global_params
    )
    weights = np.linspace(0.2, 1, N)
    weights.setflags(write=False)
    stage = case.make()
    state = pack(stage.state_dict())
    one, w1 = stage.before(round, weights)
    two, w2 = stage.before(case.round(), weights)
    require(
        torch.equal(one.updates.matrix, two.updates.matrix) and np.array_equal(w1, w2),
        "before() is not repeatable",
    )
    update = round.updates.matrix[0].clone()
    kept = update.clone()
    first = stage.after(round, update)
    require(torch.equal(stage.after(round, update), first), "after() is not repeatable")
    require(torch.equal(update, kept), "after() changed the update in place")
    given.verify()
    require(pack(stage.state_dict()) == state, "its state changed; that is for commit()")


def permutation(case: Case) -> None:
    """The aggregate does not depend on the order of clients. Use values or client ids, not positions."""
    order = np.random.default_rng(2).permutation(N)
    here, there = case.aggregate(case.round()), case.aggregate(case.round().take(order))
    require(torch.allclose(here, there, rtol=1e-4, atol=1e-6), "another order gives another aggregate")


def degenerate(case: Case) -> None:
    """Equal, zero, huge and single updates stay finite. Guard divisions by norms."""
    base = case.round().updates.matrix
    cases = {
        "all the same": base[:1].repeat(N, 1),
        "all zero": 0 * base,
        "huge": base.sign() * 3e38,
        "single": base[:1],
    }
    for kind, matrix in cases.items():
        round = case.round().take([0]) if kind == "single" else case.round()
        try:
            outcome = Guard(aggregator=Median(), stages=case.make()).process(round.with_updates(matrix))
        except Exception as error:
            raise AssertionError(f"{kind}: {error}") from None
        require(outcome.aggregate.isfinite().all(), f"{kind}: the aggregate is not finite")


def state_round_trip(case: Case) -> None:
    """The state after commit() survives packing. Keep tensors and JSON values in state_dict."""
    one, other = (Guard(aggregator=Median(), stages=case.make()) for _ in range(2))
    one.process(case.round(0))
    other.load_state_dict(unpack(pack(one.state_dict())))
    same = torch.equal(one.process(case.round(1)).aggregate, other.process(case.round(1)).aggregate)
    require(same, "the loaded state is different")


CHECKS: dict[str, Check] = {
    "card and docstring": card,
    "works in a guard": works_in_a_guard,
    "stages are pure": purity,
    "order of clients": permutation,
    "degenerate updates": degenerate,
    "state round trip": state_round_trip,
}
