"""Stages inside a guard, the gate, and what policies and aggregators remember."""

import math

import numpy as np
import pytest
import torch

from fedguard import Aggregator, Card, Detector, Guard, Ledger, PolicyInput, Round, Scores, Stage, make_policy
from fedguard.aggregators.mean import Mean
from fedguard.aggregators.median import Median
from fedguard.aggregators.trimmed_mean import TrimmedMean
from fedguard.contracts.calibration import conformal_threshold
from fedguard.contracts.stage import Staged
from fedguard.core.errors import ContractError, ParameterError, TooFewClientsError
from fedguard.core.state import pack, unpack

X = np.array([[1.0, 0.0], [2.0, 4.0], [9.0, 0.0], [40.0, 0.0]], dtype=np.float32)


class Far(Detector):
    """s_i = the first parameter; above `limit` is a suspect."""

    card = Card("far", "for tests", "FedGuard")

    def __init__(self, limit: float = 10.0):
        self.limit = limit

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, values > self.limit, "far out")


class Near(Far):
    """The same under another name, stricter."""

    card = Card("near", "for tests", "FedGuard")


class Double(Stage):
    """Doubles what comes in; remembers how many clients it saw."""

    card = Card("double", "for tests", "FedGuard")

    def __init__(self):
        self.seen = 0

    def before(self, round, weights):
        return round.with_updates(2 * round.updates.matrix), weights

    def commit(self, round, update):
        self.seen += round.n

    def state_dict(self):
        return {"seen": self.seen}

    def load_state_dict(self, state):
        self.seen = state["seen"]


class AddOne(Stage):
    """Adds one to what comes out."""

    card = Card("add_one", "for tests", "FedGuard")

    def after(self, round, update):
        return update + 1


class Pairs(Stage):
    """Merges neighbors: half as many rows."""

    card = Card("pairs", "for tests", "FedGuard")

    def before(self, round, weights):
        merged = (round.updates.matrix[::2] + round.updates.matrix[1::2]) / 2
        return Round(merged, server=round.server, index=round.index), np.ones(len(merged))


class Last(Aggregator):
    """Half of the mean and half of the last aggregate."""

    card = Card("last", "for tests", "FedGuard")

    def __init__(self):
        self.last = None

    def aggregate(self, round, weights):
        mean = round.updates.matrix.mean(0)
        return mean if self.last is None else (mean + self.last) / 2

    def commit(self, round, update):
        self.last = update.clone()

    def state_dict(self):
        return {} if self.last is None else {"last": self.last}

    def load_state_dict(self, state):
        self.last = state.get("last")


def process(guard, updates=X, index=0):
    return guard.process(Round(updates, index=index))


def test_stages_run_in_order_around_the_aggregator_on_who_is_let_through():
    outcome = process(Guard(Far(), stages=[Double(), AddOne()]))
    assert outcome.aggregate.tolist() == [2 * 4 + 1, pytest.approx(2 * 4 / 3 + 1)]
    assert process(Guard(Far(), stages=AddOne())).aggregate.tolist()[0] == 5


def test_a_stage_may_merge_clients_but_not_starve_the_aggregator():
    guard = Guard(aggregator=Median(), stages=[Pairs()])
    assert process(guard).aggregate.tolist() == [(1.5 + 24.5) / 2, 1.0]
    with pytest.raises(TooFewClientsError, match="at least 3 clients, 2 are left"):
        process(Guard(aggregator=TrimmedMean(num_malicious=1), stages=Pairs()))


def test_nobody_left_means_no_stage_no_noise_no_memory():
    guard = Guard(Far(limit=-1.0), aggregator=Last(), stages=[Double(), AddOne()])
    outcome = process(guard)
    assert outcome.kept_global
    assert outcome.aggregate.tolist() == [0, 0]
    assert guard.state_dict()["aggregator"] == {"parts": [{"seen": 0}, {}, {}]}


def test_the_rule_in_use_is_what_detectors_that_leave_clients_out_get():
    rules = []

    class Asks(Detector):
        card = Card("asks", "for tests", "FedGuard")

        def score(self, round):
            rules.append(round.server.aggregator)
            return np.zeros(round.n)

    guard = Guard(Asks(), make_policy("observe", rule="mad"), Mean(), stages=[Double(), AddOne()])
    process(guard)
    assert isinstance(rules[0], Staged)
    assert rules[0].name == "double > add_one > mean"
    assert rules[0](X).tolist()[0] == 26  # what stages do before, not what they do after


def test_stages_and_aggregators_remember_accepted_rounds_only_and_survive_packing():
    def build():
        return Guard(Far(), aggregator=Last(), stages=Double())

    guard, other = build(), build()
    process(guard)
    state = unpack(pack(guard.state_dict()))
    guard.detectors["far"].score = lambda round: Scores(np.full(round.n, math.nan))
    with pytest.raises(ContractError):
        process(guard, index=1)
    assert pack(guard.state_dict()) == pack(state)
    other.load_state_dict(state)
    assert process(other, index=1).aggregate.tolist()[0] == (8 + 8) / 2
    assert other.state_dict()["aggregator"]["parts"][0] == {"seen": 6}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda r, w: (r.with_updates(r.updates.matrix[:, :1]), w), "parameters"),
        (lambda r, w: (r, w[:-1]), "each with a weight"),
        (lambda r, w: (r.with_updates(r.updates.matrix * math.nan), w), "usable"),
    ],
)
def test_a_stage_that_breaks_the_round_is_named(change, problem):
    class Breaks(Stage):
        card = Card("breaks", "for tests", "FedGuard")

        def before(self, round, weights):
            return change(round, weights)

    with pytest.raises(ContractError, match=f"stage breaks.*{problem}"):
        process(Guard(stages=Breaks()))


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.tensor([math.nan, 0])])
def test_a_stage_that_breaks_the_aggregate_is_named(bad):
    class Breaks(Stage):
        card = Card("breaks", "for tests", "FedGuard")

        def after(self, round, update):
            return bad

    with pytest.raises(ContractError, match="stage breaks"):
        process(Guard(stages=Breaks()))


# --- the gate


def gated(limit, **gate):
    return Guard([Far(limit), Near(5.0)], make_policy("gate", **gate), Median(), stages=AddOne())


def test_a_closed_gate_is_fedavg_to_the_last_bit():
    rng = np.random.default_rng(0)
    updates, counts = rng.normal(size=(9, 501)).astype(np.float32), rng.integers(1, 99, 9)
    round_ = Round(updates, num_examples=counts)
    guarded, plain = gated(100.0).process(round_), Guard().process(round_)
    assert torch.equal(guarded.aggregate, plain.aggregate)
    assert not guarded.suspects.any()
    assert guarded.reasons[0] == "accepted: far sees no attack"


def test_an_open_gate_lets_the_inner_policy_judge_by_the_other_detectors():
    outcome = process(gated(10.0))
    assert outcome.suspects.tolist() == [False, False, True, True]
    assert outcome.aggregate.tolist() == [1.5 + 1, 2 + 1]
    assert outcome.reasons[2] == "excluded: near score 9: far out; far sees an attack by 1 clients"


def test_a_gate_alone_judges_by_its_own_detector():
    outcome = process(Guard(Far(), make_policy("gate", policy={"name": "ban", "strikes": 1})))
    assert outcome.banned.tolist() == [False, False, False, True]


def test_a_gate_passes_on_what_its_inner_policy_says_about_broken_updates():
    broken = X.copy()
    broken[0] = np.nan
    guard = Guard(Far(100.0), make_policy("gate", policy={"name": "ban", "strikes": 2}))
    assert process(guard, broken).reasons[0].startswith("excluded, strike 1 of 2")
    assert guard.policy.bans
    assert not make_policy("gate").bans


def test_gates_that_cannot_work_are_refused():
    with pytest.raises(ParameterError, match="policy is a gate itself"):
        make_policy("gate", policy="gate")
    with pytest.raises(ParameterError, match="needs the detector krum; this guard has far"):
        Guard(Far(), make_policy("gate", detector="krum"))
    with pytest.raises(ParameterError, match="needs the detector that opens it; this guard has none"):
        Guard(policy=make_policy("gate"))
    with pytest.raises(ParameterError, match="reweight needs a detector that gives weights"):
        Guard(Far(), make_policy("gate", policy="reweight"))


# --- ban: windows and parole


def ledger_of(*strikes, banned=None):
    ledger = Ledger()
    for index in strikes:
        ledger.judge("a", index, 1.0, suspect=True)
    if banned:
        ledger.ban("a", *banned, "earlier")
    return ledger


def sentence(policy, ledger, index):
    return policy.sentence("a", index, ledger)


def test_strikes_outside_the_window_are_forgotten():
    policy = make_policy("ban", strikes=2, window=3)
    assert not sentence(policy, ledger_of(2), 5).ban  # rounds 3, 4, 5 count
    assert sentence(policy, ledger_of(3), 5).ban
    assert sentence(make_policy("ban", strikes=2), ledger_of(0), 500).ban


def judged(policy, ledger, index, suspect):
    scores = {"one": Scores(np.array([0.5]), np.array([suspect]), "odd")}
    return policy.decide(PolicyInput(index, ("a",), scores, ledger))


def test_parole_is_judged_but_contributes_nothing_until_it_is_served():
    policy = make_policy("ban", strikes=3, duration=2, parole=2)
    ledger = ledger_of(0, 1, 2, banned=(2, 4))
    for k, index in enumerate((4, 5)):
        decision = judged(policy, ledger, index, suspect=False)
        assert decision.weights.tolist() == [0]
        assert not decision.suspects.any()
        assert decision.reasons[0].startswith(f"excluded, on parole: round {k + 1} of 2")
        ledger.judge("a", index, 0.5, suspect=False)
    assert judged(policy, ledger, 6, suspect=False).weights.tolist() == [1]
    assert judged(policy, ledger, 6, suspect=True).bans == {}, "three strikes again"


def test_one_suspicion_on_parole_bans_again():
    policy = make_policy("ban", strikes=3, duration=2, parole=2, max_share=1)
    decision = judged(policy, ledger_of(0, 1, 2, banned=(2, 4)), 4, suspect=True)
    assert decision.bans == {0: 6}


def test_a_guard_lets_a_client_serve_its_parole():
    guard = Guard(Far(), make_policy("ban", duration=1, parole=1))
    weights = [process(guard, index=0).weights[3]]
    honest = X.copy()
    honest[3] = 1.0
    weights += [process(guard, honest, index).weights[3] for index in (1, 2)]
    assert weights == [0, 0, 1]


@pytest.mark.parametrize(
    "wrong", [{"window": 1, "strikes": 2}, {"window": -1}, {"parole": 1}, {"parole": -1, "duration": 2}]
)
def test_windows_and_paroles_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ParameterError, match=r"window|parole"):
        make_policy("ban", **wrong)


# --- several detectors


@pytest.mark.parametrize(
    ("vote", "suspects"), [("any", [1, 1, 1, 0]), ("majority", [0, 1, 1, 0]), ("all", [0, 0, 1, 0])]
)
def test_votes(vote, suspects):
    flags = ([1, 1, 1, 0], [0, 1, 1, 0], [0, 0, 1, 0])
    scores = {str(k): Scores(np.zeros(4), np.array(f, bool), "x") for k, f in enumerate(flags)}
    decision = make_policy("exclude", vote=vote).decide(PolicyInput(0, tuple("abcd"), scores, Ledger()))
    assert decision.suspects.tolist() == [bool(s) for s in suspects]


def test_half_of_the_votes_are_no_majority_and_no_detector_is_no_suspicion():
    scores = {k: Scores(np.zeros(1), np.array([k == "a"]), "x") for k in "ab"}
    policy = make_policy("exclude", vote="majority")
    assert not policy.decide(PolicyInput(0, ("c",), scores, Ledger())).suspects.any()
    for vote in ("any", "majority", "all"):
        assert (
            not make_policy("exclude", vote=vote).decide(PolicyInput(0, ("c",), {}, Ledger())).suspects.any()
        )
    with pytest.raises(ParameterError, match="vote"):
        make_policy("exclude", vote="most")


# --- calibrated thresholds


def test_the_conformal_threshold_by_hand():
    assert conformal_threshold(np.arange(1.0, 10), 0.1) == 9  # ceil(10 * 0.9) = 9th of 9
    assert conformal_threshold(np.arange(1.0, 10), 0.5) == 5
    assert conformal_threshold(np.arange(1.0, 9), 0.1) == math.inf  # nine scores would be needed


def test_the_conformal_threshold_keeps_its_promise():
    """Over many draws, the chance that one more clean score exceeds it is at most the rate, and near it."""
    rng = np.random.default_rng(0)
    for rate in (0.05, 0.2):
        above = [rng.exponential() > conformal_threshold(rng.exponential(size=59), rate) for _ in range(4000)]
        assert rate - 0.02 < np.mean(above) < rate + 0.012


def test_a_calibrated_rule_learns_from_clean_rounds_and_then_judges():
    def build():
        rule = {"name": "calibrated", "rate": 0.2, "rounds": 2}
        return Guard(Far(), make_policy("exclude", rule=rule))

    guard, other = build(), build()
    rounds = [np.full((4, 2), value, dtype=np.float32) + np.arange(4)[:, None] for value in (0, 10, 20)]
    for index in (0, 1):
        assert not process(guard, rounds[index], index).suspects.any()
    limit = sorted([0, 1, 2, 3, 10, 11, 12, 13])[math.ceil(9 * 0.8) - 1]
    other.load_state_dict(unpack(pack(guard.state_dict())))
    for one in (guard, other):
        assert process(one, np.float32([[limit, 0], [limit + 1, 0]]), 2).suspects.tolist() == [False, True]
    assert process(guard, rounds[2], 3).suspects.all(), "it does not go on learning"


def test_calibration_counts_infinite_scores_and_refuses_absurd_rates():
    policy = make_policy("exclude", rule={"name": "calibrated", "rounds": 1, "rate": 0.5})
    scores = {"one": Scores(np.array([1.0, math.inf, math.inf]))}
    policy.commit(PolicyInput(0, ("a", "b", "c"), scores, Ledger()), None)
    policy.load_state_dict(unpack(pack(policy.state_dict())))
    assert not policy.decide(PolicyInput(1, ("a", "b", "c"), scores, Ledger())).suspects.any()
    for rate in (0, 1, -1):
        with pytest.raises(ParameterError, match="rate"):
            make_policy("exclude", rule={"name": "calibrated", "rate": rate})
