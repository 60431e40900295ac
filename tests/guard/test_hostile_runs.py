"""Hostile rounds through the guard, with every policy and every aggregator."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedguard import Card, Detector, Guard, Round, Scores, make_aggregator, make_detector, make_policy
from fedguard.contracts.registry import aggregators
from fedguard.core.errors import FedGuardError
from fedguard.core.state import pack, unpack

#: Each runs whole rounds.
quick = settings(max_examples=settings.default.max_examples // 3)

POLICIES = {
    "observe": {},
    "exclude": {},
    "reweight": {},
    "ban": {"strikes": 2, "duration": 2},
}
IDS = ["a", "b", "c", 3, 4, 5, "6", "client-7"]
COUNTS = [1, 17, 0.5, 0, -3, math.nan, math.inf, 1e-320, 1.7e308, 10**400]


class Far(Detector):
    """Distance from the median, with a threshold and weights."""

    card = Card("far", "for tests", "FedGuard")
    gives_weights = True

    def score(self, round):
        X = round.updates.matrix.double().numpy()
        values = np.linalg.norm(X - np.median(X, axis=0), axis=1)
        typical = np.median(values)
        weights = np.minimum(1.0, (typical + 1e-12) / (values + 1e-12))
        return Scores(values, values > 3 * typical, "far from the median", weights)


class Drift(Far):
    """Far, plus what the client was scored in the rounds before; keyed by id."""

    card = Card("drift", "for tests", "FedGuard")

    def __init__(self):
        self.past = {}

    def score(self, round):
        now = super().score(round)
        values = now.values + [self.past.get(str(c), 0.0) for c in round.client_ids]
        return Scores(values, values > 3 * np.median(values), "drifts", now.weights, memory=values)

    def commit(self, round, scores, decision=None):
        self.past |= dict(zip(map(str, round.client_ids), scores.memory.tolist(), strict=True))

    def state_dict(self):
        return {"past": dict(self.past)}

    def load_state_dict(self, state):
        self.past = dict(state["past"])


class Paranoid(Far):
    """Everybody is a suspect."""

    card = Card("paranoid", "for tests", "FedGuard")

    def score(self, round):
        return Scores(np.ones(round.n), np.ones(round.n, bool), "everybody is", np.zeros(round.n))


DETECTORS = {
    "none": lambda: [],
    "krum": lambda: [make_detector("krum")],
    "far": lambda: [Far()],
    "two": lambda: [Far(), Drift()],
    "paranoid": lambda: [Paranoid()],
}


def build(policy, aggregator, detectors, **more):
    if policy == "reweight" and detectors in ("none", "krum"):
        detectors = "far"
    return Guard(
        DETECTORS[detectors](), make_policy(policy, **POLICIES[policy]), make_aggregator(aggregator), **more
    )


def state(guard):
    return pack(guard.state_dict())


@st.composite
def rounds(draw, kinds=("own", "own", "own", "nan", "inf", "zero", "copy", "huge", "tiny"), index=0, d=None):
    ids = draw(st.permutations(IDS))[: draw(st.integers(1, len(IDS)))]
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.normal(size=(len(ids), d or draw(st.integers(1, 5)))).astype(np.float32)
    for i in range(len(ids)):
        kind = draw(st.sampled_from(kinds))
        X[i] = {
            "own": X[i],
            "nan": np.where(np.arange(X.shape[1]) == 0, np.nan, X[i]),
            "inf": np.full(X.shape[1], -np.inf),
            "zero": 0,
            "copy": X[0],
            "huge": X[i] / (np.abs(X[i]).max() + 1e-9) * np.float32(3e38),
            "tiny": X[i] * np.float32(1e-40),
        }[kind]
    counts = draw(st.none() | st.lists(st.sampled_from(COUNTS), min_size=len(ids), max_size=len(ids)))
    return Round(X, ids, counts, index=index)


@st.composite
def runs(draw):
    """A few rounds of one federation: clients stay away and come back."""
    d = draw(st.integers(1, 5))
    return [draw(rounds(index=t, d=d)) for t in range(draw(st.integers(1, 4)))]


#: They leave the box of the updates by design: signs are reversed, history counts, or entries become 0.
UNBOUNDED = ("robust_learning_rate", "centered_clipping", "clipped_clustering", "lasa")


def sound(round, outcome, bounded=True):
    n, usable = round.n, round.usable
    assert outcome.client_ids == round.client_ids
    assert outcome.aggregate.shape == (round.updates.d,)
    assert outcome.aggregate.dtype == torch.float32
    assert outcome.aggregate.isfinite().all()
    for array in (
        outcome.weights,
        outcome.suspects,
        outcome.banned,
        outcome.scores,
        *outcome.by_detector.values(),
    ):
        assert array.shape == (n,)
    assert len(outcome.reasons) == n
    assert all(outcome.reasons)
    assert ((outcome.weights >= 0) & (outcome.weights <= 1)).all()
    assert (outcome.weights[~usable] == 0).all()
    assert outcome.suspects[~usable].all()
    assert outcome.kept_global == (not outcome.weights.any())
    if outcome.kept_global:
        assert not outcome.aggregate.any()
        assert outcome.note
    live = round.updates.matrix[torch.from_numpy(outcome.weights > 0)]
    if len(live) and bounded:  # most rules stay within the box of the updates they were given
        slack = 1e-6 * live.abs().max()
        assert (outcome.aggregate.double() >= live.min(0).values.double() - slack).all()
        assert (outcome.aggregate.double() <= live.max(0).values.double() + slack).all()


def earns_a_strike(policy, round, outcome, banned, i):
    """Unusable among usable ones, or a suspect; under ban no suspect of many, and none that sent zeros."""
    here = np.array([client not in banned for client in round.client_ids])
    judged = round.usable & here
    if not round.usable[i] or not judged.any():
        return bool(judged.any())
    most = 2 * outcome.suspects[judged].sum() > judged.sum()
    spared = policy == "ban" and (most or not round.updates.matrix[i].any())
    return bool(outcome.suspects[i]) and not spared


@pytest.mark.parametrize("aggregator", aggregators.names())
@quick
@given(run=runs(), policy=st.sampled_from(sorted(POLICIES)), detectors=st.sampled_from(sorted(DETECTORS)))
def test_hostile_runs(aggregator, run, policy, detectors):
    guard = build(policy, aggregator, detectors)
    for round in run:
        before, banned = state(guard), set(guard.banned(round.client_ids, round.index))
        inputs = round.updates.matrix.clone(), round.num_examples.copy()
        try:
            outcome = guard.process(round)
        except FedGuardError:
            assert state(guard) == before, "a refused round leaves no trace"
            continue
        sound(round, outcome, bounded=aggregator not in UNBOUNDED)
        for i, client in enumerate(round.client_ids):
            record = guard.ledger[client]
            assert (outcome.weights[i] == 0) >= (client in banned)
            assert bool(outcome.banned[i]) == guard.ledger.is_banned(client, round.index)
            if client in banned:
                assert math.isnan(outcome.scores[i])
            else:
                assert (round.index in record.strikes) == earns_a_strike(policy, round, outcome, banned, i)
        torch.testing.assert_close(inputs[0], round.updates.matrix, rtol=0, atol=0, equal_nan=True)
        np.testing.assert_array_equal(inputs[1], round.num_examples)


ORDERLESS = ("own", "own", "nan", "inf", "huge", "tiny")  # no copies: ties are broken by position


@pytest.mark.parametrize("policy", POLICIES)
@quick
@given(rounds(ORDERLESS), st.sampled_from(sorted(DETECTORS)), st.randoms(use_true_random=False))
def test_verdicts_belong_to_ids_and_not_to_positions(policy, round, detectors, random):
    order = list(range(round.n))
    random.shuffle(order)
    outcomes = []
    for given_round in (round, round.take(order)):
        guard = build(policy, "mean", detectors)
        for client in (3, "b"):
            guard.ledger.ban(client, 0, None, "earlier")
        try:
            outcomes.append(guard.process(given_round))
        except FedGuardError as error:
            outcomes.append(type(error))
    here, there = outcomes
    if isinstance(here, type):
        assert here == there
        return
    where = {client: i for i, client in enumerate(there.client_ids)}
    for i, client in enumerate(here.client_ids):
        j = where[client]
        np.testing.assert_allclose(here.scores[i], there.scores[j], rtol=1e-9)
        if detectors == "krum":  # the two clients closest to each other may tie, and position decides
            continue
        np.testing.assert_allclose(here.weights[i], there.weights[j], rtol=1e-9)
        assert here.suspects[i] == there.suspects[j]
        assert here.banned[i] == there.banned[j]
        assert here.reasons[i].split(":")[0] == there.reasons[j].split(":")[0]
    if detectors == "krum":
        return
    slack = 1e-6 * float(round.updates.matrix.nan_to_num(0, 0, 0).abs().max())
    torch.testing.assert_close(here.aggregate, there.aggregate, rtol=1e-5, atol=slack)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("reason", ["banned", "unusable"])
@quick
@given(round=rounds(("own", "own", "zero", "huge", "copy")), detectors=st.sampled_from(sorted(DETECTORS)))
def test_the_banned_and_the_unusable_are_as_if_absent(policy, reason, round, detectors):
    out = {3, "b", "c"}
    present = [i for i, client in enumerate(round.client_ids) if client not in out]
    if not present:
        return
    X = round.updates.matrix.clone()
    if reason == "unusable":
        X[[i for i, client in enumerate(round.client_ids) if client in out]] = math.nan
    guards = [build(policy, "geometric_median", detectors, on_too_few="keep_global") for _ in range(2)]
    if reason == "banned":
        for guard in guards:
            for client in out:
                guard.ledger.ban(client, 0, None, "earlier")
    with_them = Round(X, round.client_ids, round.num_examples)
    try:
        without = guards[1].process(with_them.take(present))
    except FedGuardError as error:
        with pytest.raises(type(error)):
            guards[0].process(with_them)
        return
    outcome = guards[0].process(with_them)
    assert torch.equal(outcome.aggregate, without.aggregate)
    for name in ("weights", "suspects", "banned", "scores"):
        np.testing.assert_array_equal(getattr(outcome, name)[present], getattr(without, name), name)
    assert [outcome.reasons[i] for i in present] == list(without.reasons)
    for client in without.client_ids:
        first, second = (repr(guard.ledger[client]) for guard in guards)
        assert first == second
    assert [pack(d.state_dict()) for d in guards[0].detectors.values()] == [
        pack(d.state_dict()) for d in guards[1].detectors.values()
    ]


@quick
@given(strikes=st.integers(1, 3), duration=st.none() | st.integers(1, 4), mean_rounds=st.integers(4, 10))
def test_bans_end_after_their_duration_and_can_be_earned_again(strikes, duration, mean_rounds):
    """One client is far out in every round: it is asked, struck, banned, and comes back, over and over."""
    guard = Guard(Far(), make_policy("ban", strikes=strikes, duration=duration))
    X = np.array([[0.0], [1.0], [2.0], [1e6]])
    free, expected, struck = [], [], 0
    until = 0.0
    for t in range(mean_rounds):
        outcome = guard.process(Round(X, list("abcd"), index=t))
        free.append(not math.isnan(outcome.scores[3]))
        expected.append(t >= until)
        if t >= until:
            struck += 1
            if struck == strikes:
                struck, until = 0, math.inf if duration is None else t + duration
        assert bool(outcome.banned[3]) == (t < until)
        assert outcome.weights.tolist() == [1, 1, 1, 0]
    assert free == expected


@quick
@given(runs(), st.sampled_from(sorted(POLICIES)))
def test_a_guard_restored_from_bytes_goes_on_as_if_nothing_had_happened(run, policy):
    straight, stopped = (build(policy, "median", "two") for _ in range(2))
    for round in run:
        restored = build(policy, "median", "two")
        restored.load_state_dict(unpack(state(stopped)))
        assert state(restored) == state(stopped)
        stopped = restored
        outcomes = [guard.process(round) for guard in (straight, stopped)]
        assert torch.equal(outcomes[0].aggregate, outcomes[1].aggregate)
        assert outcomes[0].reasons == outcomes[1].reasons
    assert state(straight) == state(stopped)
