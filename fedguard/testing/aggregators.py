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
from .core import Check, Report, Untouched, carded, documented, require, resolve, run
from .federation import N, federation, fresh

#: Two clients are left out, the others count differently.
WEIGHTS = np.array([1, 0, 0.5, 1, 1, 0, 0.75, 1])
WEIGHTS.setflags(write=False)


@dataclass(frozen=True)
class Case:
    """An aggregator class with the parameters that it is checked with."""

    cls: type[Aggregator]
    params: Mapping[str, Any]

    def make(self) -> Aggregator:
        """A fresh aggregator."""
        return self.cls(**self.params)

    def round(self, index: int = 0) -> Round:
        """A round of eight clients, with everything that a server may own."""
        return fresh(federation()[index])


def check_aggregator(method: type[Aggregator] | str, params: Mapping[str, Any] | None = None) -> Report:
    """Run the whole contract over an aggregator; ``check_with`` of the class is used if params are absent."""
    cls = resolve(method, aggregators)
    case = Case(cls, dict(cls.check_with) if params is None else dict(params))
    return run(cls, CHECKS, case, case.params)


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
    """The order of clients does not show. Break ties by value or client id, not by position."""
    order = np.random.default_rng(2).permutation(N)
    here = case.make()(case.round(), WEIGHTS)
    there = case.make()(fresh(case.round()).take(order), WEIGHTS[order])
    _near(here, there, "another order of clients gives another aggregate")


def absence(case: Case) -> None:
    """Weight 0 and broken updates are absence. Leave __call__ as it is and use only what `aggregate` gets."""
    keep = np.flatnonzero(WEIGHTS)
    wild = case.round().updates.matrix.clone()
    wild[WEIGHTS == 0] *= 1e30
    expected = case.make()(case.round().take(keep), WEIGHTS[keep])
    _near(case.make()(case.round().with_updates(wild), WEIGHTS), expected, "a client of weight 0 shows")
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
    """It changes nothing that it is given, and says the same again. Remember things in commit() only."""
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
    aggregator(round).zero_()  # with everybody there, the round is not copied
    given.verify()


def extremes(case: Case) -> None:
    """Finite in, finite out, whatever the scale. Mind squares of 1e37 and divisions by 1e-40."""
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
    """If everybody sends the same, that comes out. Exempt methods that rescale, and say why."""
    same = case.round().updates.matrix[:1].repeat(N, 1)
    _near(case.make()(case.round().with_updates(same)), same[0], "something else came out")


def small_rounds(case: Case) -> None:
    """The smallest round works, a smaller one is refused. Declare min_clients()."""
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
    """What commit() remembers survives being packed. Keep tensors and JSON values in state_dict."""
    aggregator, restored = case.make(), case.make()
    for index in range(2):
        round = case.round(index)
        aggregator.commit(round, aggregator(round))
    restored.load_state_dict(unpack(pack(aggregator.state_dict())))
    require(
        torch.equal(restored(case.round(2)), aggregator(case.round(2))), "the loaded state is another one"
    )


def declared_needs(case: Case) -> None:
    """A bare round is enough if `needs` is empty. Declare what you use."""
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
