"""The four policies by hand."""

import numpy as np
import pytest

from fedguard import Ledger, PolicyInput, Scores, make_policy
from fedguard.contracts.decision import Decision, checked
from fedguard.core.errors import ContractError, ParameterError

IDS = ("a", "b", "c")


def case(suspects=(False, True, False), index=5, ledger=None, **more):
    values = np.array([0.1, 0.9, 0.2])
    scores = {"first": Scores(values, np.array(suspects), "too far out", **more)}
    return PolicyInput(index, IDS, scores, ledger or Ledger())


@pytest.mark.parametrize(
    ("name", "weights", "reason"),
    [
        ("observe", [1, 1, 1], "observed: first score 0.9: too far out"),
        ("exclude", [1, 0, 1], "excluded: first score 0.9: too far out"),
        ("ban", [1, 0, 1], "banned for good: first score 0.9: too far out"),
        ("reweight", [1, 0.5, 0], "weight 0.5: first score 0.9: too far out"),
    ],
)
def test_weights_suspects_and_reasons(name, weights, reason):
    decision = make_policy(name).decide(case(weights=np.array([7.0, 0.5, -1.0])))
    assert decision.weights.tolist() == weights
    assert decision.suspects.tolist() == [False, True, False]
    assert decision.reasons[1] == reason
    assert decision.bans == ({1: None} if name == "ban" else {})


def test_any_detector_makes_a_suspect_and_every_detector_is_quoted():
    scores = {
        "one": Scores(np.array([1.0, 2, 3]), np.array([True, False, False]), "x"),
        "two": Scores(np.array([4.0, 5, 6]), np.array([False, False, True]), "y"),
    }
    decision = make_policy("exclude").decide(PolicyInput(0, IDS, scores, Ledger()))
    assert decision.suspects.tolist() == [True, False, True]
    assert decision.reasons == (
        "excluded: one score 1: x; two score 4",
        "accepted: one score 2; two score 5",
        "excluded: one score 3; two score 6: y",
    )


def test_no_detector_suspects_nobody():
    decision = make_policy("exclude").decide(PolicyInput(0, IDS, {}, Ledger()))
    assert decision.weights.tolist() == [1, 1, 1]
    assert decision.reasons == ("accepted: no detector",) * 3


@pytest.mark.parametrize("name", ["observe", "exclude", "ban", "reweight"])
def test_every_policy_takes_a_rule(name):
    policy = make_policy(name, rule={"name": "threshold", "value": 0.15})
    decision = policy.decide(case(suspects=(True, False, False), weights=np.ones(3)))
    assert decision.suspects.tolist() == [False, True, True]
    assert "score above 0.15" in decision.reasons[2]


def test_weights_of_several_detectors_multiply():
    scores = {
        "one": Scores(np.zeros(3), np.zeros(3, bool), weights=np.array([0.5, 1, 0])),
        "two": Scores(np.zeros(3), np.zeros(3, bool), weights=np.array([0.5, 0.25, 1])),
        "none": Scores(np.zeros(3), np.zeros(3, bool)),
    }
    decision = make_policy("reweight").decide(PolicyInput(0, IDS, scores, Ledger()))
    assert decision.weights.tolist() == [0.25, 0.25, 0]


@pytest.mark.parametrize(
    ("strikes", "past", "banned_since", "banned"),
    [
        (1, [], None, True),
        (2, [], None, False),
        (2, [3], None, True),
        (2, [0], None, True),
        (3, [1, 3], None, True),
        (3, [3], None, False),
        (2, [2], 2, False),  # the strike that earned the last ban is used up
        (2, [0, 2], 2, False),
        (2, [2, 4], 2, True),
    ],
)
def test_strikes_count_since_the_last_ban(strikes, past, banned_since, banned):
    ledger = Ledger()
    for index in past:
        ledger.judge("b", index, 1.0, suspect=True)
    if banned_since is not None:
        ledger.ban("b", banned_since, banned_since + 1, "earlier")
    decision = make_policy("ban", strikes=strikes, duration=10).decide(case(ledger=ledger))
    assert decision.bans == ({1: 15} if banned else {})
    assert decision.weights.tolist() == [1, 0, 1]
    count = 1 + sum(p > (-1 if banned_since is None else banned_since) for p in past)
    expected = "banned until round 15" if banned else f"excluded, strike {count} of {strikes}"
    assert decision.reasons[1].startswith(expected)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("ban", {"max_bans": 0}, "max_bans is 0 per round; use at least 1"),
        ("ban", {"strikes": 0}, "at least one suspicion"),
        ("ban", {"duration": 0}, "at least 1, or null"),
        ("ban", {"duration": "soon"}, "got 'soon'"),
        ("ban", {"strike": 2}, "did you mean 'strikes'"),
        ("exclude", {"rule": "bst"}, "unknown rule 'bst'"),
        ("observe", {"rules": "top"}, "did you mean 'rule'"),
    ],
)
def test_parameters_are_checked(name, params, message):
    with pytest.raises(ParameterError, match=message):
        make_policy(name, **params)


def test_a_decision_is_turned_into_plain_arrays():
    decision = checked(Decision([1, 0], [0, 1], ["x", "y"], {np.int64(1): np.int64(4)}), "p", 2)
    assert decision.weights.dtype == np.float64
    assert decision.suspects.dtype == bool
    assert decision.reasons == ("x", "y")
    assert decision.bans == {1: 4}
    assert {type(v) for item in decision.bans.items() for v in item} == {int}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": np.ones(1)}, "2 numbers"),
        ({"weights": np.array([1, np.nan])}, "2 numbers"),
        ({"weights": np.array([1, 1.5])}, "2 numbers"),
        ({"weights": np.array([1, -0.5])}, "2 numbers"),
        ({"suspects": np.array([True])}, "suspects of shape"),
        ({"reasons": ("one",)}, "no reason"),
        ({"reasons": ("one", "")}, "no reason"),
        ({"bans": {2: None}}, "positions"),
        ({"bans": {-1: None}}, "positions"),
    ],
)
def test_a_broken_decision_is_refused(change, message):
    good = {"weights": np.ones(2), "suspects": np.zeros(2, bool), "reasons": ("x", "y"), "bans": {}}
    with pytest.raises(ContractError, match=f"policy p returned .*{message}"):
        checked(Decision(**{**good, **change}), "p", 2)


def test_no_more_bans_in_a_round_than_allowed():
    ids = tuple("abcdef")
    one = Scores(np.array([5.0, 9, 1, 7, 7, 0]), np.array([1, 1, 0, 1, 1, 0], dtype=bool), "far")
    two = Scores(np.array([0.0, 0, 8, 0, 0, 0]), np.array([0, 0, 1, 0, 0, 0], dtype=bool), "odd")
    decision = make_policy("ban", max_bans=2, max_share=1).decide(
        PolicyInput(3, ids, {"one": one, "two": two}, Ledger())
    )
    assert sorted(decision.bans) == [1, 2], "the highest of each detector"
    assert decision.weights.tolist() == [0, 0, 0, 0, 0, 1], "the others stay out of this round"
    assert decision.reasons[0].startswith("excluded, spared a ban: 2 in this round already: one score 5: far")
    alone = make_policy("ban", max_bans=2, max_share=1).decide(PolicyInput(3, ids, {"one": one}, Ledger()))
    assert sorted(alone.bans) == [1, 3], "equal scores: by id"
    everybody = make_policy("ban", max_bans=5, max_share=1).decide(
        PolicyInput(3, ids, {"one": one}, Ledger())
    )
    assert sorted(everybody.bans) == [0, 1, 3, 4]


def test_who_has_not_earned_a_ban_takes_no_place_from_those_who_have():
    ledger = Ledger()
    ledger.judge("c", 1, 1.0, True)
    values = np.array([9.0, 8.0, 1.0])
    scores = {"one": Scores(values, np.array([True, True, True]), "far")}
    decision = make_policy("ban", strikes=2, max_bans=1, max_share=1).decide(
        PolicyInput(2, IDS, scores, ledger)
    )
    assert sorted(decision.bans) == [2]
    assert decision.reasons[0].startswith("excluded, strike 1 of 2")
