"""Every registered policy keeps the contract."""

import numpy as np
import pytest

from fedguard import Ledger, PolicyInput, Round, Scores, make_policy
from fedguard.contracts.decision import checked
from fedguard.contracts.registry import policies
from fedguard.core.state import pack

NAMES = policies.names()
IDS = ("a", "b", 3, 4, "5")


def ledger():
    ledger = Ledger()
    for t in range(3):
        ledger.judge("a", t, 0.1, suspect=False)
        ledger.judge(3, t, 9.0, suspect=True)
    ledger.ban(4, 0, 1, "earlier")
    return ledger


def cases():
    rng = np.random.default_rng(0)
    hostile = np.array([np.inf, 0.0, -np.inf, 1e300, 0.0])
    for values in (rng.normal(size=5), np.zeros(5), hostile):
        for suspects in (values > 0, np.zeros(5, bool), np.ones(5, bool)):
            weights = rng.random(5)
            one = {"one": Scores(values, suspects, "a reason", weights)}
            yield one
            yield {**one, "two": Scores(values[::-1].copy(), ~suspects, "", weights[::-1].copy())}


pytestmark = pytest.mark.parametrize("name", NAMES)


def freeze(scores):
    for part in scores.values():
        for array in (part.values, part.suspects, part.weights):
            array.setflags(write=False)
    return scores


@pytest.mark.parametrize("scores", list(cases()), ids=range(18))
def test_an_answer_for_everybody(name, scores):
    decision = make_policy(name).decide(PolicyInput(4, IDS, freeze(scores), ledger()))
    plain = checked(decision, name, 5)  # shapes, range, bans of clients that exist
    assert decision.weights.dtype == np.float64
    assert decision.suspects.dtype == bool
    assert len(decision.reasons) == 5
    assert all(isinstance(r, str) and r and "\n" not in r for r in decision.reasons)
    assert all(until is None or until > 4 for until in plain.bans.values())
    assert all(plain.suspects[k] for k in plain.bans), "only suspects are banned"
    for part, reason in zip(decision.suspects, decision.reasons, strict=True):
        assert ("a reason" in reason or "own rule" in reason) == part


@pytest.mark.parametrize("scores", list(cases()), ids=range(18))
def test_the_same_case_twice_is_the_same_decision_and_changes_nothing(name, scores):
    policy, past = make_policy(name), ledger()
    before, own = pack(past.state_dict()), pack(policy.state_dict())
    case = PolicyInput(4, IDS, scores, past)
    first, second = policy.decide(case), policy.decide(case)
    np.testing.assert_array_equal(first.weights, second.weights)
    np.testing.assert_array_equal(first.suspects, second.suspects)
    assert (first.reasons, first.bans) == (second.reasons, second.bans)
    assert pack(past.state_dict()) == before
    assert pack(policy.state_dict()) == own


def test_the_order_of_clients_does_not_show(name):
    order = [3, 1, 4, 0, 2]
    for scores in cases():
        shuffled = {
            key: Scores(s.values[order], s.suspects[order], s.reason, s.weights[order])
            for key, s in scores.items()
        }
        here = make_policy(name).decide(PolicyInput(4, IDS, scores, ledger()))
        there = make_policy(name).decide(PolicyInput(4, tuple(IDS[i] for i in order), shuffled, ledger()))
        assert here.weights[order].tolist() == there.weights.tolist()
        assert here.suspects[order].tolist() == there.suspects.tolist()
        assert tuple(here.reasons[i] for i in order) == there.reasons
        assert {order.index(k): until for k, until in here.bans.items()} == there.bans


def test_a_policy_sees_neither_updates_nor_truth(name):
    seen = set()

    class Watched(PolicyInput):
        def __getattribute__(self, attribute):
            if not attribute.startswith("__"):
                seen.add(attribute)
            return super().__getattribute__(attribute)

    scores = next(iter(cases()))
    make_policy(name).decide(Watched(4, IDS, scores, ledger()))
    allowed = {"index", "client_ids", "scores", "ledger", "idle"}
    assert seen <= allowed
    assert set(vars(PolicyInput(4, IDS, scores, ledger()))) == allowed
    assert not {"updates", "round", "malicious", "num_examples"} & (
        set(vars(Scores(np.zeros(1)))) | set(dir(PolicyInput))
    )
    assert hasattr(Round, "usable"), "a round is what a case must not hold"


def test_nobody_suspected_and_nobody_left_out(name):
    scores = {"one": Scores(np.zeros(5), np.zeros(5, bool), "", np.ones(5))}
    decision = make_policy(name).decide(PolicyInput(4, IDS, scores, ledger()))
    assert decision.weights.tolist() == [1] * 5
    assert not decision.suspects.any()
    assert decision.bans == {}


def test_only_a_policy_that_says_so_bans(name):
    policy = make_policy(name, **policies.get(name).check_with)
    banned = any(policy.decide(PolicyInput(4, IDS, scores, ledger())).bans for scores in cases())
    assert banned == policy.bans
