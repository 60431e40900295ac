"""The policy contract as checks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..contracts.decision import PolicyInput as Situation
from ..contracts.decision import checked
from ..contracts.policy import Policy
from ..contracts.registry import policies
from ..contracts.scores import Scores
from ..core.state import pack, unpack
from ..ledger.memory import Ledger
from .core import Check, Report, carded, check_contract, documented, require

IDS = ("a", "b", 3, 4, "5")


@dataclass(frozen=True)
class Case:
    """A policy class and its parameters for the checks."""

    cls: type[Policy]
    params: Mapping[str, Any]

    def make(self) -> Policy:
        """Return a fresh policy."""
        return self.cls(**self.params)


def check_policy(method: type[Policy] | str, params: Mapping[str, Any] | None = None) -> Report:
    """Run all contract checks on a policy; ``params`` default to the class's ``check_with``."""
    return check_contract(method, policies, params, Case, CHECKS)


def ledger() -> Ledger:
    """Return a ledger with a client that has strikes and one whose ban is over."""
    past = Ledger()
    for t in range(3):
        past.judge("a", t, 0.1, suspect=False)
        past.judge(3, t, 9.0, suspect=True)
    past.ban(4, 0, 1, "earlier")
    return past


def situations() -> Iterator[Situation]:
    """Yield ordinary, equal and hostile scores; no, some and all suspects; one and two detectors."""
    rng = np.random.default_rng(0)
    for values in (rng.normal(size=5), np.zeros(5), np.array([np.inf, 0.0, -np.inf, 1e300, 0.0])):
        for suspects in (values > 0, np.zeros(5, bool), np.ones(5, bool)):
            one = Scores(values, suspects, "a reason", rng.random(5))
            two = Scores(values[::-1].copy(), ~suspects, "another", rng.random(5))
            for scores in ({"one": one}, {"one": one, "two": two}):
                for part in scores.values():
                    for array in (part.values, part.suspects, part.weights):
                        array.setflags(write=False)  # type: ignore[union-attr]  # all three are there
                yield Situation(4, IDS, scores, ledger())


def card(case: Case) -> None:
    """The class has a complete card and docstring. Document every parameter."""
    carded(case.cls)
    if case.cls.card.paper != "FedGuard":
        documented(case.cls)


def answers(case: Case) -> None:
    """Every client gets a weight in [0, 1] and a reason; only suspects are banned, and into the future."""
    for situation in situations():
        decision = checked(case.make().decide(situation), case.cls.card.name, 5)
        require(
            all(isinstance(r, str) and r and "\n" not in r for r in decision.reasons), "a reason is missing"
        )
        require(all(u is None or u > 4 for u in decision.bans.values()), "a ban ends in the past")
        require(all(decision.suspects[k] for k in decision.bans), "it bans a client that is not a suspect")


def purity(case: Case) -> None:
    """Deciding changes neither ledger nor policy, and is repeatable. Change state only in commit()."""
    for situation in situations():
        policy = case.make()
        before, own = pack(situation.ledger.state_dict()), pack(policy.state_dict())
        one, other = policy.decide(situation), policy.decide(situation)
        same = np.array_equal(one.weights, other.weights) and np.array_equal(one.suspects, other.suspects)
        require(same and one.reasons == other.reasons and one.bans == other.bans, "two answers")
        require(pack(situation.ledger.state_dict()) == before, "it wrote to the ledger")
        require(pack(policy.state_dict()) == own, "its state changed; that is for commit()")


def permutation(case: Case) -> None:
    """Decisions do not depend on the order of clients. Decide by each client's own scores and record."""
    order = [3, 1, 4, 0, 2]
    for situation in situations():
        moved = {
            name: Scores(
                s.values[order],
                None if s.suspects is None else s.suspects[order],
                s.reason,
                None if s.weights is None else s.weights[order],
            )
            for name, s in situation.scores.items()
        }
        here = case.make().decide(situation)
        ids = tuple(IDS[i] for i in order)
        there = case.make().decide(Situation(4, ids, moved, ledger()))
        require(here.weights[order].tolist() == there.weights.tolist(), "another order gives other weights")
        require(here.suspects[order].tolist() == there.suspects.tolist(), "another order, other suspects")
        reasons = tuple(here.reasons[i] for i in order)
        require(reasons == tuple(there.reasons), "another order gives other reasons")
        require(
            {order.index(k): u for k, u in here.bans.items()} == there.bans, "another order gives other bans"
        )


def innocence(case: Case) -> None:
    """Without suspects, no client is excluded or banned."""
    scores = {"one": Scores(np.zeros(5), np.zeros(5, bool), "", np.ones(5))}
    decision = case.make().decide(Situation(4, IDS, scores, Ledger()))
    punished = decision.weights.tolist() != [1] * 5 or decision.suspects.any() or decision.bans
    require(not punished, "somebody is punished")


def declared_bans(case: Case) -> None:
    """The class attribute `bans` says whether it bans. Set it if it does."""
    banned = any(case.make().decide(situation).bans for situation in situations())
    require(banned == case.make().bans, f"it {'bans' if banned else 'never bans'}, but `bans` says otherwise")


def state_round_trip(case: Case) -> None:
    """The state after commit() survives packing. Keep tensors and JSON values in state_dict."""
    policy, restored = case.make(), case.make()
    for situation in situations():
        policy.commit(situation, policy.decide(situation))
    restored.load_state_dict(unpack(pack(policy.state_dict())))
    require(pack(restored.state_dict()) == pack(policy.state_dict()), "the loaded state is different")


CHECKS: dict[str, Check] = {
    "card and docstring": card,
    "an answer for everybody": answers,
    "deciding is pure": purity,
    "order of clients": permutation,
    "nobody suspected": innocence,
    "declared bans": declared_bans,
    "state round trip": state_round_trip,
}
