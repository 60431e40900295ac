"""The aggregator contract as checks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.registry import aggregators
from ..contracts.round import Round
from ..core.errors import TooFewClientsError
from ..core.state import pack, unpack
from .core import Check, Report, Untouched, carded, check_contract, documented, require
from .federation import N, federation, fresh

#: Two clients are left out; the others have different weights.
WEIGHTS = np.array([1, 0, 0.5, 1, 1, 0, 0.75, 1])
WEIGHTS.setflags(write=False)


@dataclass(frozen=True)
class Case:
    """An aggregator class and its parameters for the checks."""

    cls: type[Aggregator]
    params: Mapping[str, Any]

    def make(self) -> Aggregator:
        """Return a fresh aggregator."""
        return self.cls(**self.params)

    def round(self, index: int = 0) -> Round:
        """Return a round of eight clients, with everything that a server may own."""
        return fresh(federation()[index])


def check_aggregator(method: type[Aggregator] | str, params: Mapping[str, Any] | None = None) -> Report:
    """Run all contract checks on an aggregator; ``params`` default to the class's ``check_with``."""
    return check_contract(method, aggregators, params, Case, CHECKS)


def _near(a: Tensor, b: Tensor, message: str) -> None:
    require(torch.allclose(a, b, rtol=1e-4, atol=1e-6), message)


def card(case: Case) -> None:
    """The class has a complete card and docstring. Document every parameter, and name the source."""
    carded(case.cls)
    documented(case.cls)


def shape(case: Case) -> None:
    """It returns d finite float32 numbers without a gradient. Sum in float64 and return .float()."""
    result = case.make()(case.round(), WEIGHTS)
    require(result.shape == (case.round().updates.d,), f"it returned shape {tuple(result.shape)}")
    require(result.dtype == torch.float32 and not result.requires_grad, f"it returned {result.dtype}")
    require(result.isfinite().all(), "a number is not finite")
    if not case.make().needs:
        one = case.make()(Round(case.round().updates.matrix[:, :1], num_examples=case.round().num_examples))
        require(one.shape == (1,) and one.isfinite().all(), f"of one parameter it makes {one}")


def permutation(case: Case) -> None:
    """The result does not depend on the order of clients. Break ties by value or client id, not position."""
    order = np.random.default_rng(2).permutation(N)
    here = case.make()(case.round(), WEIGHTS)
    there = case.make()(fresh(case.round()).take(order), WEIGHTS[order])
    _near(here, there, "another order of clients gives another aggregate")


def absence(case: Case) -> None:
    """Clients of weight 0 or with broken updates have no effect. Override only `aggregate`, not __call__."""
    keep = np.flatnonzero(WEIGHTS)
    wild = case.round().updates.matrix.clone()
    wild[WEIGHTS == 0] *= 1e30
    expected = case.make()(case.round().take(keep), WEIGHTS[keep])
    _near(
        case.make()(case.round().with_updates(wild), WEIGHTS), expected, "a client of weight 0 has an effect"
    )
    wild[WEIGHTS == 0] = float("nan")
    _near(case.make()(case.round().with_updates(wild), WEIGHTS), expected, "a broken update shows")
    broken, counts = case.round().updates.matrix.clone(), np.array(case.round().num_examples)
    broken[0, 3], counts[1] = float("nan"), -1
    hurt = dataclasses.replace(case.round().with_updates(broken), num_examples=counts)
    rest = case.make()(case.round().take(range(2, N)))
    _near(case.make()(hurt), rest, "a broken update, or an absurd number of examples, shows without weights")


def nobody(case: Case) -> None:
    """With nobody left it returns zeros. Leave __call__ as it is."""
    round = case.round()
    broken = round.with_updates(float("nan") * round.updates.matrix)
    for result in (case.make()(round, np.zeros(N)), case.make()(broken)):
        require(
            result.shape == (round.updates.d,) and not result.any(), "it returned something else than zeros"
        )
        require(result.dtype == torch.float32, f"it returned {result.dtype}")


def purity(case: Case) -> None:
    """It changes none of its inputs, and repeats its result. Change state only in commit()."""
    round, aggregator = case.round(), case.make()
    given = Untouched(
        updates=round.updates.matrix, counts=round.num_examples, global_model=round.global_params
    )
    state = pack(aggregator.state_dict())
    first = aggregator(round, WEIGHTS).clone()
    aggregator(case.round().with_updates(7 * round.updates.matrix))
    require(torch.equal(aggregator(round, WEIGHTS), first), "the same round gives another aggregate")
    require(torch.equal(case.make()(case.round(), WEIGHTS), first), "a fresh one gives another aggregate")
    given.verify()
    require(pack(aggregator.state_dict()) == state, "aggregating changed its state; that is for commit()")
    aggregator(round).zero_()  # if no client is left out, the round is not copied
    given.verify()


def extremes(case: Case) -> None:
    """Finite updates of any scale give a finite result. Mind squares of 1e37 and divisions by 1e-40."""
    base = case.round().updates.matrix
    for scale in (1e-12, 1e20, 1e37):
        hostile = (base.double() * (scale / float(base.abs().max()))).float()
        hostile[0], hostile[1], hostile[2] = 3.4e38, 0.0, hostile[3]
        try:
            result = case.make()(case.round().with_updates(hostile))
        except Exception as error:
            raise AssertionError(f"updates of scale {scale:g}: {error}") from None
        require(result.isfinite().all(), f"updates of scale {scale:g} give a number that is not finite")


def equal_updates(case: Case) -> None:
    """If all clients send the same update, it returns that. Exempt methods that rescale, and say why."""
    same = case.round().updates.matrix[:1].repeat(N, 1)
    _near(case.make()(case.round().with_updates(same)), same[0], "it returned a different update")


def small_rounds(case: Case) -> None:
    """The smallest allowed round works, a smaller one is refused. Declare min_clients()."""
    aggregator = case.make()
    least = aggregator.min_clients()
    require(1 <= least <= N, f"min_clients() is {least}; check it with parameters that {N} clients allow")
    require(aggregator(case.round().take(range(least))).isfinite().all(), "the smallest round fails")
    if least > 1:
        try:
            aggregator(case.round().take(range(least - 1)))
        except TooFewClientsError:
            return
        raise AssertionError(f"{least - 1} clients were accepted")


def state_round_trip(case: Case) -> None:
    """The state after commit() survives packing. Keep tensors and JSON values in state_dict."""
    aggregator, restored = case.make(), case.make()
    for index in range(2):
        round = case.round(index)
        aggregator.commit(round, aggregator(round))
    restored.load_state_dict(unpack(pack(aggregator.state_dict())))
    require(torch.equal(restored(case.round(2)), aggregator(case.round(2))), "the loaded state is different")


def declared_needs(case: Case) -> None:
    """A round without a server is enough if `needs` is empty. Declare what you use."""
    if not case.make().needs:
        bare = dataclasses.replace(case.round(), server=None, global_params=None)
        require(case.make()(bare).isfinite().all(), "a round without a server fails")


CHECKS: dict[str, Check] = {
    "card and docstring": card,
    "d finite numbers": shape,
    "order of clients": permutation,
    "absence": absence,
    "nobody left": nobody,
    "aggregating is pure": purity,
    "extreme scales": extremes,
    "equal updates come out as they are": equal_updates,
    "small rounds": small_rounds,
    "state round trip": state_round_trip,
    "declared needs": declared_needs,
}
