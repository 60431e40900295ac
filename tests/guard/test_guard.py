"""The guard: what an outcome says, and that a round counts as a whole or not at all."""

import math

import numpy as np
import pytest
import torch

from fedguard import Aggregator, Card, Detector, Guard, Ledger, Policy, Round, Scores, make_policy
from fedguard.aggregators.krum import Krum
from fedguard.aggregators.trimmed_mean import TrimmedMean
from fedguard.contracts.decision import Decision
from fedguard.core.errors import (
    ContractError,
    DetectorError,
    FedGuardError,
    ParameterError,
    TooFewClientsError,
)
from fedguard.core.state import pack, unpack

INF, NAN = math.inf, math.nan
IDS = ("a", "b", "c", "d")
X = np.array([[1.0, 0.0], [2.0, 0.0], [3.0, 0.0], [40.0, 0.0]])


class First(Detector):
    """s_i = the first parameter; above 10 is a suspect. Remembers how often it saw each client."""

    card = Card("first", "for tests", "FedGuard")

    def __init__(self):
        self.seen = {}

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, values > 10, "above 10", info={"largest": float(values.max())})

    def commit(self, round, scores, decision=None):
        for client in round.client_ids:
            self.seen[str(client)] = self.seen.get(str(client), 0) + 1

    def state_dict(self):
        return {"seen": dict(self.seen)}

    def load_state_dict(self, state):
        self.seen = dict(state["seen"])


class Last(First):
    """The opposite order, and nobody is a suspect."""

    card = Card("last", "for tests", "FedGuard")

    def score(self, round):
        return Scores(-round.updates.matrix[:, 0].double().numpy(), np.zeros(round.n, bool))


class Clumsy(First):
    """Fails half-way through its commit."""

    card = Card("clumsy", "for tests", "FedGuard")
    error = RuntimeError

    def commit(self, round, scores, decision=None):
        super().commit(round.take([0]), scores)
        raise self.error("half-way")


def state(guard):
    return pack(guard.state_dict())


def test_defaults_follow_from_the_detectors():
    assert (Guard().policy.name, Guard().aggregator.name) == ("observe", "mean")
    assert Guard(First()).policy.name == "exclude"
    assert list(Guard([First(), Last()]).detectors) == ["first", "last"]


def test_set_up_is_checked():
    with pytest.raises(ParameterError, match="same name: first, first"):
        Guard([First(), First()])
    with pytest.raises(ParameterError, match="first does not"):
        Guard(First(), make_policy("reweight"))
    with pytest.raises(ParameterError, match="needs a detector that gives weights"):
        Guard(policy=make_policy("reweight"))


def test_an_ordinary_round():
    outcome = Guard(First()).process(Round(X, IDS, num_examples=[1, 1, 2, 9]))
    assert outcome.client_ids == IDS
    assert outcome.aggregate.tolist() == [(1 + 2 + 2 * 3) / 4, 0]
    assert outcome.weights.tolist() == [1, 1, 1, 0]
    assert outcome.suspects.tolist() == [False, False, False, True]
    assert not outcome.banned.any()
    assert outcome.scores.tolist() == [1, 2, 3, 40]
    assert outcome.by_detector["first"].tolist() == [1, 2, 3, 40]
    assert outcome.info == {"first": {"largest": 40.0}}
    assert outcome.reasons[0] == "accepted: first score 1"
    assert outcome.reasons[3] == "excluded: first score 40: above 10"
    assert (outcome.kept_global, outcome.note) == (False, "")
    assert list(outcome.seconds) == ["first", "policy", "aggregator"]


def test_several_detectors_give_the_mean_rank():
    outcome = Guard([First(), Last()]).process(Round(X, IDS))
    assert outcome.scores.tolist() == [0.5] * 4
    tied = np.array([[1.0, 0], [1, 0], [2, 0]])
    assert Guard([First()]).process(Round(tied)).scores.tolist() == [1, 1, 2]
    both = Guard([First(), type("Again", (First,), {"card": Card("again", "for tests", "x")})()])
    assert both.process(Round(tied)).scores.tolist() == [0.25, 0.25, 1]
    assert both.process(Round(tied[:1])).scores.tolist() == [0]


def test_no_detector_scores_nobody_but_still_refuses_the_unusable():
    hurt = X.copy()
    hurt[1] = NAN
    outcome = Guard().process(Round(hurt, IDS, num_examples=[1, 1, -2, 1]))
    np.testing.assert_array_equal(outcome.scores, [NAN, INF, INF, NAN])
    assert outcome.by_detector == {}
    assert outcome.weights.tolist() == [1, 0, 0, 1]
    assert outcome.suspects.tolist() == [False, True, True, False]
    assert outcome.reasons[1] == "non-finite update"
    assert outcome.reasons[2] == "sample count -2 is not a positive finite number"
    assert outcome.aggregate.tolist() == [20.5, 0]


@pytest.mark.parametrize("why", ["unusable", "banned", "suspects"])
def test_nobody_left_keeps_the_global_model_and_every_field_has_its_shape(why):
    guard = Guard([First(), Last()])
    updates = {"unusable": X * NAN, "banned": X, "suspects": X + 100}[why]
    if why == "banned":
        for client in IDS:
            guard.ledger.ban(client, 0, None, "earlier")
    outcome = guard.process(Round(updates, IDS, index=1))
    assert outcome.kept_global
    assert "stays as it is" in outcome.note
    assert outcome.aggregate.dtype == torch.float32
    assert outcome.aggregate.tolist() == [0, 0]
    assert outcome.weights.tolist() == [0] * 4
    assert outcome.suspects.all()
    assert outcome.banned.all() == outcome.banned.any() == (why == "banned")
    assert set(outcome.by_detector) == set(outcome.info) == {"first", "last"}
    expected = {"unusable": [INF] * 4, "banned": [NAN] * 4, "suspects": [101, 102, 103, 140]}[why]
    np.testing.assert_array_equal(outcome.by_detector["first"], expected)
    assert set(outcome.seconds) == {"first", "last", "policy", "aggregator"}
    assert all(outcome.reasons)


def test_a_ban_from_the_first_strike_to_its_end():
    guard = Guard(First(), make_policy("ban", duration=2))
    calm = X.copy()
    calm[3] = 4
    outcomes = [guard.process(Round(X if t == 0 else calm, IDS, index=t)) for t in range(3)]
    assert [o.banned.tolist()[3] for o in outcomes] == [True, True, False]
    assert [o.weights.tolist()[3] for o in outcomes] == [0, 0, 1]
    assert [o.suspects.tolist()[3] for o in outcomes] == [True, True, False]
    np.testing.assert_array_equal([o.scores[3] for o in outcomes], [40, NAN, 4])
    assert outcomes[1].reasons[3].startswith("banned since round 0: banned until round 2: first score 40")
    assert guard.banned(IDS, 1) == ["d"]
    assert guard.banned(IDS, 2) == []
    assert guard.ledger["d"].rounds == 2, "not judged while banned"
    assert guard.ledger.ever_banned("d")
    assert guard.detectors["first"].seen == {"a": 3, "b": 3, "c": 3, "d": 2}


def test_a_banned_and_unusable_client_is_banned():
    guard = Guard(First())
    guard.ledger.ban("b", 0, None, "earlier")
    outcome = guard.process(Round(np.where(X == 2, NAN, X), IDS, index=1))
    assert outcome.reasons[1] == "banned since round 0: earlier"
    assert math.isnan(outcome.scores[1])
    assert outcome.banned.tolist() == [False, True, False, False]


def test_a_client_that_keeps_sending_nonsense_is_banned_too():
    guard = Guard(First(), make_policy("ban", strikes=2, duration=3))
    broken = np.zeros((4, 3))
    broken[2, 1] = math.nan
    first, second, third = (guard.process(Round(broken, IDS, index=t)) for t in range(3))
    assert first.reasons[2] == "excluded, strike 1 of 2: non-finite update"
    assert not first.banned[2]
    assert second.reasons[2] == "banned until round 4: non-finite update"
    assert second.banned[2]
    assert third.reasons[2].startswith("banned since round 1")


def test_the_ledger_follows():
    guard = Guard(First(), make_policy("exclude"), ledger=(ledger := Ledger()))
    guard.process(Round(np.where(X == 2, NAN, X), IDS, index=6))
    assert guard.ledger is ledger
    assert ledger["d"].strikes == ledger["b"].strikes == [6]
    assert (ledger["a"].rounds, ledger["a"].last_score, ledger["b"].last_score) == (1, 1.0, INF)


def answering(base, name, method, answer):
    members = {"card": Card(name, "for tests", "FedGuard"), method: lambda self, *_: answer()}
    return type(name.title(), (base,), members)()


def failing(kind):
    """A guard that fails in one of its parts, after a detector that works."""

    def boom():
        raise RuntimeError("boom")

    broken = Decision(np.ones(1), np.zeros(1, bool), ("one",))
    stray_ban = Decision(np.ones(4), np.zeros(4, bool), ("x",) * 4, {9: None})
    return {
        "score": lambda: Guard([First(), answering(Detector, "bad", "score", boom)]),
        "scores": lambda: Guard([First(), answering(Detector, "bad", "score", lambda: [NAN] * 4)]),
        "no rule": lambda: Guard([First(), answering(Detector, "bad", "score", lambda: [1.0] * 4)]),
        "policy": lambda: Guard(First(), answering(Policy, "bad", "decide", boom)),
        "decision": lambda: Guard(First(), answering(Policy, "bad", "decide", lambda: broken)),
        "stray ban": lambda: Guard(First(), answering(Policy, "bad", "decide", lambda: stray_ban)),
        "aggregator": lambda: Guard(First(), None, answering(Aggregator, "bad", "aggregate", boom)),
        "shape": lambda: Guard(
            First(), None, answering(Aggregator, "bad", "aggregate", lambda: torch.ones(1))
        ),
        "nan": lambda: Guard(
            First(), None, answering(Aggregator, "bad", "aggregate", lambda: torch.full((2,), NAN))
        ),
        "too few": lambda: Guard(First(), None, Krum(num_malicious=2), on_too_few="error"),
        "too few 2": lambda: Guard(First(), None, TrimmedMean(num_malicious=3), on_too_few="error"),
        "commit": lambda: Guard([First(), Clumsy()]),
        "commit first": lambda: Guard([Clumsy(), First()]),
        "interrupted": lambda: Guard([First(), type("C", (Clumsy,), {"error": KeyboardInterrupt})()]),
    }[kind]()


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("score", RuntimeError),
        ("scores", DetectorError),
        ("no rule", ParameterError),
        ("policy", RuntimeError),
        ("decision", ContractError),
        ("stray ban", ContractError),
        ("aggregator", RuntimeError),
        ("shape", ContractError),
        ("nan", ContractError),
        ("too few", TooFewClientsError),
        ("too few 2", TooFewClientsError),
        ("commit", RuntimeError),
        ("commit first", RuntimeError),
        ("interrupted", KeyboardInterrupt),
    ],
)
def test_a_refused_round_leaves_no_trace(kind, error):
    guard = failing(kind)
    guard.ledger.judge("a", 0, 1.0, suspect=True)
    guard.detectors["first"].seen = {"a": 5}
    before = state(guard)
    with pytest.raises(error):
        guard.process(Round(X, IDS, index=1))
    assert state(guard) == before


def test_state_round_trip_and_continuation():
    def run(guard, rounds):
        for t in rounds:
            guard.process(Round(X * (1 + t % 2), IDS, index=t))
        return guard

    def fresh():
        return Guard([First(), Last()], make_policy("ban", strikes=2, duration=3))

    resumed = fresh()
    resumed.load_state_dict(unpack(state(run(fresh(), range(3)))))
    assert state(run(resumed, range(3, 8))) == state(run(fresh(), range(8)))


def test_a_state_of_another_guard_is_refused_before_anything_changes():
    guard = Guard(First())
    guard.process(Round(X, IDS))
    before = state(guard)
    for other in (Guard(), Guard(Last()), Guard([First(), Last()])):
        with pytest.raises(ParameterError, match="a guard with detectors"):
            guard.load_state_dict(other.state_dict())
    assert state(guard) == before


def test_a_ledger_that_is_kept_elsewhere_is_not_overwritten():
    guard = Guard(First(), make_policy("ban", strikes=2))
    guard.process(Round(X, IDS))
    old = guard.state_dict()
    guard.process(Round(X, IDS, index=1))
    guard.load_state_dict(old, keep_ledger=True)
    assert guard.ledger.is_banned("d", 2)
    assert guard.detectors["first"].seen["a"] == 1, "what methods remember goes back all the same"
    guard.load_state_dict(old)
    assert not guard.ledger.is_banned("d", 2)


def test_detectors_see_the_aggregator_in_use():
    seen = []

    class Peek(First):
        def score(self, round):
            seen.append(round.server.aggregator)
            return super().score(round)

    guard = Guard(Peek(), aggregator=TrimmedMean())
    guard.process(Round(X))
    assert seen == [guard.aggregator]


def test_every_error_of_a_hopeless_round_is_ours():
    with pytest.raises(FedGuardError):
        Guard(First()).process(Round(np.zeros((0, 2))))
