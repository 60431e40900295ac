"""Too few clients left: what methods are told shrinks, and then the stated choice decides."""

import numpy as np
import pytest
import torch

from fedguard import (
    Aggregator,
    Card,
    Detector,
    Guard,
    Round,
    Scores,
    make_aggregator,
    make_detector,
    make_policy,
    make_stage,
)
from fedguard.core.errors import ParameterError, TooFewClientsError
from fedguard.judging.too_few import banned_elsewhere, told, with_fewer
from fedguard.ledger.memory import Ledger

RNG = np.random.default_rng(0)


class Perfect(Detector):
    """Whoever sent more than 10 in the first place is a suspect."""

    card = Card("perfect", "for tests", "FedGuard")

    def __init__(self, least=1):
        self.least = least

    def min_clients(self):
        return self.least

    def score(self, round):
        values = round.updates.matrix[:, 0].double().numpy()
        return Scores(values, values > 10, "above 10")


def attacked(n, bad, d=3):
    """The last ``bad`` of n clients are far out."""
    updates = np.random.default_rng(n).normal(size=(n, d)).astype(np.float32)
    updates[n - bad :] += 100
    return updates


@pytest.mark.parametrize("name", ["trimmed_mean", "krum", "bulyan", "slsgd"])
@pytest.mark.parametrize("policy", ["exclude", "ban"])
def test_a_perfect_detector_does_not_end_the_run(name, policy):
    updates = attacked(20, 8)
    guard = Guard(Perfect(), policy, make_aggregator(name, num_malicious=8))
    for t in range(3):
        outcome = guard.process(Round(updates))
        assert outcome.weights.tolist() == [1] * 12 + [0] * 8, t
        assert not outcome.kept_global
        low, high = updates[:12].min(0), updates[:12].max(0)
        assert ((outcome.aggregate.numpy() >= low - 1e-6) & (outcome.aggregate.numpy() <= high + 1e-6)).all()
    assert guard.aggregator.num_malicious == 8, "the user's object is as it was"


def test_it_is_told_of_no_fewer_than_it_must():
    """Of 12 clients a trimmed mean can cut 5 at each end: 8 less 3."""
    updates = attacked(20, 8)
    outcome = Guard(Perfect(), "exclude", make_aggregator("trimmed_mean", num_malicious=8)).process(
        Round(updates)
    )
    expected = np.sort(updates[:12].astype(np.float64), axis=0)[5:7].mean(0)
    np.testing.assert_allclose(outcome.aggregate.numpy(), expected, rtol=1e-6)
    assert outcome.note == "trimmed_mean assumes 3 fewer malicious clients: that many are already out"
    plain = Guard(Perfect(), "exclude", make_aggregator("trimmed_mean", num_malicious=4)).process(
        Round(updates)
    )
    assert plain.note == "", "12 are enough for 4: nothing shrinks"


def test_bans_of_clients_that_are_not_asked_count_as_well():
    updates = attacked(20, 8)
    guard = Guard(Perfect(), "ban", make_aggregator("trimmed_mean", num_malicious=8))
    guard.process(Round(updates))
    outcome = guard.process(Round(updates[:12], range(12)))
    assert not outcome.kept_global
    part = guard.process(Round(updates[:3], range(3)))  # a quarter is asked: 8 bans are 2 malicious fewer
    assert part.kept_global
    assert part.note == "trimmed_mean needs at least 17 clients, 3 are left: the global model stays as it is"


@pytest.mark.parametrize(
    ("here", "expected"),
    [
        (range(12), (8, 8)),  # full participation: all of them
        (range(3), (8, 2)),  # 3 of the 12 admitted: a quarter, 2 of 8
        (range(11), (8, 7)),  # 8 · 11 / 12 = 7.33
        ([*range(12), "12", 13], (6, 6)),  # two of the banned came themselves
        ([], (8, 0)),
        ([20], (8, 0)),  # a newcomer: 8 · 1 / 13
    ],
)
def test_the_banned_who_would_have_been_sampled(here, expected):
    """By hand: 12 admitted and 8 banned clients are known, and the banned participate at the same rate."""
    ledger = Ledger()
    for client in range(20):
        ledger.judge(client, 0, 1.0, suspect=client >= 12)
        if client >= 12:
            ledger.ban(client, 1, None, "")
    present = sum(str(client) not in ("12", "13") for client in here)
    assert banned_elsewhere(ledger, 1, list(here), present) == expected


def test_of_banned_clients_only_nobody_would_have_been_sampled():
    ledger = Ledger()
    ledger.ban(0, 1, None, "")
    assert banned_elsewhere(ledger, 1, [], 0) == (1, 0)


@pytest.mark.parametrize("name", ["krum", "dnc"])
def test_a_detector_is_told_of_fewer_if_updates_are_unusable(name):
    updates = attacked(12, 0)
    updates[5:] = np.nan
    outcome = Guard(make_detector(name, num_malicious=5), "exclude").process(Round(updates))
    assert np.isfinite(outcome.scores[:5]).all()
    assert "fewer malicious clients" in outcome.note


def test_nested_methods_are_told_too_and_nothing_is_changed():
    spec = [{"name": "krum", "num_malicious": 4, "select": "m_krum"}, {"name": "dnc", "num_malicious": 3}]
    ensemble = make_detector("ensemble", members=spec)
    less = told(ensemble, 2)
    assert [m.num_malicious for m in less.members.values()] == [2, 1]
    assert [m.num_malicious for m in ensemble.members.values()] == [4, 3]
    assert told(told(ensemble, 9), 9).members["krum"].num_malicious == 0
    staged = Guard(aggregator=make_aggregator("krum", num_malicious=2), stages="norm_clipping").aggregator
    assert told(staged, 1).inner.num_malicious == 1
    assert staged.inner.num_malicious == 2
    mean = make_aggregator("mean")
    assert told(mean, 3) is mean


@pytest.mark.parametrize("least", range(12))
def test_the_smallest_number_that_helps_is_found(least):
    calls = []

    def call(fewer):
        calls.append(fewer)
        if fewer < least:
            raise TooFewClientsError(f"with {fewer}")
        return fewer

    if least > 10:
        with pytest.raises(TooFewClientsError, match="with 0"):
            with_fewer(call, lambda: 10)
        return
    assert with_fewer(call, lambda: 10) == (least, least)
    assert len(calls) <= 6


@pytest.mark.parametrize(
    ("choice", "expected"), [(None, 0.0), ("keep_global", 0.0), ("mean", 4.0), ("median", 2.0)]
)
def test_the_choice_where_the_aggregator_has_too_few(choice, expected):
    class Six(Aggregator):
        card = Card("six", "for tests", "FedGuard")

        def min_clients(self):
            return 6

        def aggregate(self, round, weights):
            return torch.full((round.updates.d,), 7.0)

    updates = np.array([[0.0], [1.0], [2.0], [8.0], [9.0], [100.0]], dtype=np.float32)
    guard = Guard(Perfect(), aggregator=Six(), on_too_few=choice)
    outcome = guard.process(Round(updates))
    assert outcome.aggregate.tolist() == [expected]
    assert "six needs at least 6 clients, 5 are left" in outcome.note
    assert outcome.kept_global == (choice in (None, "keep_global"))
    assert outcome.weights.any() != outcome.kept_global
    assert outcome.suspects.tolist() == [False] * 5 + [True]
    assert guard.next_index == 1, "the round counts"


def test_a_round_that_was_too_small_as_it_came_is_a_mistake():
    for methods in ({"detectors": Perfect(4)}, {"aggregator": make_aggregator("krum")}):
        with pytest.raises(TooFewClientsError):
            Guard(**methods).process(Round(attacked(2, 0)))
        kept = Guard(**methods, on_too_few="keep_global").process(Round(attacked(2, 0)))
        assert kept.kept_global
        mean = Guard(**methods, on_too_few="mean").process(Round(attacked(2, 0)))
        np.testing.assert_allclose(mean.aggregate.numpy(), attacked(2, 0).mean(0), rtol=1e-6)

        broken = attacked(3, 0)
        broken[2] = np.nan
        assert Guard(**methods).process(Round(broken[1:])).kept_global, "it lost somebody"
        with pytest.raises(TooFewClientsError):
            Guard(**methods, on_too_few="error").process(Round(broken[1:]))


@pytest.mark.parametrize("choice", ["keep_global", "mean"])
def test_nobody_is_scored_or_blamed_where_a_detector_has_too_few(choice):
    updates = attacked(4, 1)
    updates[0] = np.nan
    guard = Guard(Perfect(4), make_policy("ban", strikes=1), on_too_few=choice)
    outcome = guard.process(Round(updates))
    assert outcome.suspects.tolist() == [True, False, False, False], "NaN is held against its sender alone"
    assert outcome.banned.tolist() == [True, False, False, False]
    assert np.isnan(outcome.scores[1:]).all()
    assert outcome.reasons[3] == "not scored: perfect needs at least 4 clients, the round has 3"
    assert outcome.kept_global == (choice == "keep_global")
    assert "nobody is scored" in outcome.note
    assert guard.ledger.clients() == [0]


def test_a_client_on_parole_contributes_nothing_there_either():
    guard = Guard(Perfect(), make_policy("ban", duration=1, parole=3), on_too_few="mean")
    guard.process(Round(attacked(4, 1)))
    guard.detectors["perfect"].least = 5
    assert guard.process(Round(attacked(4, 0))).weights.tolist() == [1, 1, 1, 0]


def test_stages_stay_where_the_mean_takes_the_place():
    clip = make_stage("norm_clipping", bound=1e-3)
    guard = Guard(
        Perfect(), aggregator=make_aggregator("krum", num_malicious=9), stages=clip, on_too_few="mean"
    )
    outcome = guard.process(Round(attacked(6, 1)))
    assert 0 < float(outcome.aggregate.norm()) <= 1.001e-3


def test_where_a_stage_has_too_few_as_well_the_global_model_stays():
    mixing = make_stage("nearest_neighbor_mixing", num_malicious=1)
    guard = Guard(
        Perfect(), aggregator=make_aggregator("krum", num_malicious=9), stages=mixing, on_too_few="mean"
    )
    few = mixing.min_clients()
    outcome = guard.process(Round(attacked(few, 1)))
    assert outcome.kept_global
    assert outcome.aggregate.tolist() == [0, 0, 0]
    assert "are left: the global model stays as it is" in outcome.note
    assert not guard.process(Round(attacked(few + 1, 1))).kept_global, "one more is enough for the mean"


def test_a_gate_and_several_detectors_live_with_it():
    members = [make_detector("krum", num_malicious=3), make_detector("norm_bound")]
    updates = attacked(5, 0)
    updates[0] = np.nan
    for policy in ("gate", "exclude"):
        outcome = Guard(members, policy, on_too_few="mean").process(Round(updates[:3]))
        assert outcome.weights.tolist() == [0, 1, 1], policy


def test_a_wrong_choice_is_named():
    with pytest.raises(ParameterError, match=r"on_too_few is 'skip'; use 'keep_global', 'mean', 'median'"):
        Guard(on_too_few="skip")


def test_a_suite_may_state_the_choice(tmp_path):
    from fedguard.core.errors import ConfigError
    from fedguard.evaluation.suites.load import load_suite
    from fedguard.evaluation.suites.suite import resolved
    from fedguard.simulation.build import build_guard

    path = tmp_path / "few.yaml"
    path.write_text("defenses: {x: {detector: dnc, aggregator: krum, on_too_few: median}}\n")
    suite, _ = load_suite(path)
    assert build_guard(suite.cells()[0]).on_too_few == "median"
    assert resolved(suite).defenses["x"].on_too_few == "median"
    path.write_text("defenses: {x: {detector: dnc, on_too_few: skip}}\n")
    with pytest.raises(ConfigError, match=r"few.yaml:1.*on_too_few"):
        load_suite(path)


def test_a_skipped_round_counts_and_blames_who_sent_nonsense():
    updates = attacked(4, 1)
    updates[0] = np.nan
    guard = Guard(Perfect(), make_policy("ban", strikes=1))
    outcome = guard.skip(Round(updates), "the disk was full")
    assert outcome.reasons[1] == "not scored: the disk was full"
    assert outcome.banned.tolist() == [True, False, False, False]
    assert outcome.kept_global
    assert guard.next_index == 1
