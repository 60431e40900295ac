"""What every built-in policy does beyond its contract (that one: tests/testing/test_checks.py)."""

import numpy as np
import pytest

from fedguard import PolicyInput, Round, Scores, make_policy
from fedguard.contracts.registry import policies
from fedguard.testing.policies import IDS, ledger, situations

#: What a policy decides on; `idle` names the clients whose update is zero.
VISIBLE = {"index", "client_ids", "scores", "ledger", "idle"}

pytestmark = pytest.mark.parametrize("name", policies.names())


def test_arrays_and_the_reasons_of_suspects(name):
    for situation in situations():
        decision = make_policy(name).decide(situation)
        assert decision.weights.dtype == np.float64
        assert decision.suspects.dtype == bool
        words = [{"one": "a reason", "two": "another"}[key] for key in situation.scores]
        for suspect, reason in zip(decision.suspects, decision.reasons, strict=True):
            assert (any(word in reason for word in words) or "own rule" in reason) == suspect


def test_a_policy_sees_neither_updates_nor_truth(name):
    seen = set()

    class Watched(PolicyInput):
        def __getattribute__(self, attribute):
            seen.add(attribute)
            return super().__getattribute__(attribute)

    scores = next(situations()).scores
    make_policy(name).decide(Watched(4, IDS, scores, ledger()))
    assert {attribute for attribute in seen if not attribute.startswith("__")} <= VISIBLE | {"excuse"}
    assert set(vars(PolicyInput(4, IDS, scores, ledger()))) == VISIBLE
    assert not {"updates", "round", "malicious", "num_examples"} & (
        set(vars(Scores(np.zeros(1)))) | set(dir(PolicyInput))
    )
    assert hasattr(Round, "usable"), "a round is what a case must not hold"


def test_past_strikes_alone_leave_nobody_out(name):
    scores = {"one": Scores(np.zeros(5), np.zeros(5, bool), "", np.ones(5))}
    decision = make_policy(name).decide(PolicyInput(4, IDS, scores, ledger()))
    assert decision.weights.tolist() == [1] * 5
    assert not decision.suspects.any()
    assert decision.bans == {}
