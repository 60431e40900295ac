"""The policy "evidence" against a by-hand version, and its promise in simulation."""

import math

import numpy as np
import pytest

from fedguard import Ledger, PolicyInput, Scores, make_policy
from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack
from fedguard.policies.evidence import Evidence

KAPPAS = (0.1, 0.25, 0.5)


def case(index, values, suspects=None, ids=None, name="one"):
    values = np.asarray(values, dtype=float)
    flagged = np.zeros(len(values), bool) if suspects is None else np.asarray(suspects, bool)
    ids = tuple(range(len(values))) if ids is None else tuple(ids)
    return PolicyInput(index, ids, {name: Scores(values, flagged, "because")}, Ledger())


def run(policy, rounds, ids=None, suspects=None):
    """Client → first round in which it is banned; the policy goes on judging."""
    banned = {}
    for t, values in enumerate(rounds):
        situation = case(t, values, None if suspects is None else suspects[t], ids)
        decision = policy.decide(situation)
        policy.commit(situation, decision)
        for k in decision.bans:
            banned.setdefault(situation.client_ids[k], t)
    return banned


def by_hand(rounds, learn, client, share=0.01):
    """M_t of one client, bet by bet, with the p-values counted one by one."""
    clean = [s for values in rounds[:learn] for s in values]
    own, result = [], []
    wealth = [0.2] * 5
    q = 1 / (len(clean) + 1)
    for values in rounds[learn:]:
        s = values[client]
        at_least = 1
        for other in [*clean, *own]:
            if other >= s:
                at_least += 1
        p = at_least / (1 + len(clean) + len(own))
        total = math.fsum(wealth)
        wealth = [(1 - share) * w + share * total / 5 for w in wealth]
        factors = [1.0, 1 / q if p <= q else 0.0] + [k * math.pow(p, k - 1) for k in KAPPAS]
        wealth = [w * f for w, f in zip(wealth, factors, strict=True)]
        own.append(s)
        result.append((math.fsum(wealth), p))
    return result


def figures(reason):
    """The total and the p out of "…: evidence M of L (p P): …"."""
    words = reason.split("evidence ")[1]
    return float(words.split(" of ")[0]), float(words.split("(p ")[1].split(")")[0])


@pytest.mark.parametrize("share", [0.0, 0.01, 0.2])
def test_wealth_is_that_by_hand(share):
    rng = np.random.default_rng(1)
    rounds = [rng.integers(0, 40, 6).astype(float).tolist() for _ in range(12)]  # with ties
    for values in rounds[7:]:
        values[2] += 35
    policy = Evidence(rounds=4, share=share, alpha=1e-9)
    expected = {c: by_hand(rounds, 4, c, share) for c in range(6)}
    for t, values in enumerate(rounds):
        situation = case(t, values)
        decision = policy.decide(situation)
        if t >= 4:
            for c in range(6):
                wealth, p = figures(decision.reasons[c])
                assert wealth == pytest.approx(expected[c][t - 4][0], rel=6e-3)  # printed with 3 digits
                assert p == pytest.approx(expected[c][t - 4][1], rel=6e-2)
        policy.commit(situation, decision)
    for client, wealth, *_ in policy.state_dict()["past"]:
        assert math.fsum(wealth) == pytest.approx(expected[client][-1][0], rel=1e-12)


def test_levels_of_clients_are_taken_off():
    """Client 1 is always 100 higher; its scores alone say nothing under "own", everything under "none"."""
    rng = np.random.default_rng(2)
    level = np.array([0.0, 100.0, 0.0, 0.0])
    rounds = [level + rng.normal(size=4) for _ in range(40)]
    own = Evidence(rounds=10, center="own", alpha=0.05)
    assert run(own, rounds) == {}
    for _, wealth, *_ in own.state_dict()["past"]:
        assert sum(wealth) < 20
    # the by-hand p of client 1 in round 10: differences to the mean of its other clean scores
    residuals = [
        rounds[r][c] - np.mean([rounds[o][c] for o in range(10) if o != r])
        for c in range(4)
        for r in range(10)
    ]
    here = rounds[10][1] - np.mean([rounds[r][1] for r in range(10)])
    p = (1 + sum(r >= here for r in residuals)) / 41
    fresh = Evidence(rounds=10, center="own", alpha=1e-9)
    run(fresh, rounds[:10])
    assert figures(fresh.decide(case(10, rounds[10])).reasons[1])[1] == pytest.approx(p, rel=6e-2)
    assert set(run(Evidence(rounds=10, alpha=0.05), rounds)) == {1}


def test_a_declared_rate():
    """p = rate for suspects, 1 otherwise; by hand."""
    flags = [0, 1, 0, 1, 1]
    wealth = [0.2] * 5
    expected = []
    for flag in flags:
        total = sum(wealth)
        wealth = [0.99 * w + 0.01 * total / 5 for w in wealth]
        p = 0.02 if flag else 1.0
        factors = [1.0, 50.0 if flag else 0.0] + [k * p ** (k - 1) for k in KAPPAS]
        wealth = [w * f for w, f in zip(wealth, factors, strict=True)]
        expected.append(sum(wealth))
    policy = Evidence(rounds=0, rate=0.02, alpha=1e-9)
    for t, flag in enumerate(flags):
        situation = case(t, [float(flag), 0.0], [bool(flag), False])
        decision = policy.decide(situation)
        assert figures(decision.reasons[0])[0] == pytest.approx(expected[t], rel=6e-3)
        assert decision.weights.tolist() == [1.0 - flag, 1.0]
        policy.commit(situation, decision)


def test_limit_is_clients_over_alpha():
    suspects = [[True]] * 3
    assert run(Evidence(rounds=0, rate=0.01, alpha=0.05, max_share=1), [[1.0]] * 3, suspects=suspects) == {
        0: 0
    }
    assert run(
        Evidence(rounds=0, rate=0.01, alpha=0.05, clients=2, max_share=1), [[1.0]] * 3, suspects=suspects
    ) == {0: 1}


def test_every_bet_is_fair():
    """Σ over the m equally likely p-values j/m of f(p)/m ≤ 1 for each bet: the wealth is no gift."""
    from fedguard.policies.evidence import bets

    for m in (11, 201, 1001):
        mean = np.mean([bets(j / m, 1 / m) for j in range(1, m + 1)], axis=0)
        assert (mean <= 1 + 1e-12).all()
        assert mean[0] == 1
        assert mean[1] == pytest.approx(1)


@pytest.mark.parametrize("federations", [30, pytest.param(80, marks=pytest.mark.slow)])
def test_honest_clients_are_banned_no_more_often_than_promised(federations):
    """Honest clients over 60 rounds, each ten with a calibration of their own; α = 0.05; heavy tails."""
    banned, clients = 0, 10 * federations
    for seed in range(federations):
        rng = np.random.default_rng(seed)
        rounds = [rng.standard_cauchy(10) for _ in range(70)]
        banned += len(run(Evidence(rounds=10, alpha=0.05, clients=1), rounds))
    assert banned / clients <= 0.05 + 3 * (0.05 * 0.95 / clients) ** 0.5
    assert banned > 0  # else the promise would be kept by never banning


@pytest.mark.parametrize("count", [30, pytest.param(80, marks=pytest.mark.slow)])
def test_nobody_of_many_is_banned_under_the_union_bound(count):
    federations = 0
    for seed in range(count):
        rng = np.random.default_rng(1000 + seed)
        rounds = [rng.exponential(size=10) for _ in range(50)]
        federations += bool(run(Evidence(rounds=10, alpha=0.05, clients=10), rounds))
    assert federations / count <= 0.05 + 3 * (0.05 * 0.95 / count) ** 0.5


def test_suspicions_at_the_declared_rate_ban_no_more_than_promised():
    rng = np.random.default_rng(5)
    flags = rng.random((60, 600)) < 0.01
    banned = run(Evidence(rounds=0, rate=0.01, alpha=0.05), flags.astype(float), suspects=flags)
    assert len(banned) / 600 <= 0.05 + 0.027


def test_a_blatant_attack_is_banned_in_one_round():
    rng = np.random.default_rng(3)
    rounds = [rng.normal(size=20) for _ in range(30)] + [np.r_[1e6, rng.normal(size=19)]]
    policy = Evidence(rounds=30, alpha=0.01)  # 601 / 5 ≥ 1 / α
    assert run(policy, rounds) == {0: 30}


def test_a_sleeper_takes_several_rounds():
    rng = np.random.default_rng(4)
    rounds = [rng.normal(size=20) for _ in range(60)]
    for t in range(40, 60):
        rounds[t][7] = 4 + rng.normal()
    banned = run(Evidence(rounds=10, alpha=0.01), rounds)
    assert set(banned) == {7}
    assert 40 < banned[7] <= 46


def test_without_a_share_a_sleeper_is_forgotten_for_longer():
    """The share is what keeps a stake: without it, honest rounds use the bets up."""
    rng = np.random.default_rng(4)
    rounds = [rng.normal(size=20) for _ in range(110)]
    for t in range(100, 110):
        rounds[t][7] = 5.0 + 0.01 * t
    with_share = run(Evidence(rounds=10, alpha=0.01), rounds)
    without = run(Evidence(rounds=10, alpha=0.01, share=0.0), rounds)
    assert with_share[7] < without.get(7, 999)


def test_a_client_keeps_its_evidence_under_either_form_of_its_id():
    policy = Evidence(rounds=0, rate=0.02, alpha=0.002, max_share=1)
    for t, name in enumerate([7, "7"]):
        situation = case(t, [1.0], [True], ids=[name])
        decision = policy.decide(situation)
        assert (decision.bans == {}) == (t == 0), "one round is not enough"
        policy.commit(situation, decision)
    assert len(policy.state_dict()["past"]) == 1
    assert decision.bans == {0: None}


def test_memory_is_bounded():
    policy = Evidence(rounds=1, memory=3)
    run(policy, np.random.default_rng(0).normal(size=(9, 4)))
    assert {len(scores["one"]) for _, _, scores, *_ in policy.state_dict()["past"]} == {3}


def test_infinite_and_equal_scores_are_defined():
    rounds = [[0.0, 0.0, 0.0]] * 3 + [[np.inf, -np.inf, 0.0]] * 3 + [[1e300, 0.0, 0.0]] * 3
    for center in ("none", "own"):
        policy = Evidence(rounds=2, center=center)
        run(policy, rounds)
        restored = Evidence(rounds=2, center=center)
        restored.load_state_dict(unpack(pack(policy.state_dict())))
        assert pack(restored.state_dict()) == pack(policy.state_dict())
        last = case(9, [np.inf, 0.0, 0.0])
        assert restored.decide(last).reasons == policy.decide(last).reasons
        assert np.isfinite([w for _, wealth, *_ in policy.state_dict()["past"] for w in wealth]).all()


def test_two_detectors_share_the_doubt():
    """The smaller of two p-values, doubled."""
    policy = Evidence(rounds=1, alpha=1e-9)
    ids = tuple(range(9))
    clean = np.arange(9.0)

    def both(t, a, b):
        none = np.zeros(9, bool)
        return PolicyInput(t, ids, {"a": Scores(a, none, "x"), "b": Scores(b, none, "y")}, Ledger())

    first = both(0, clean, clean)
    policy.commit(first, policy.decide(first))
    decision = policy.decide(both(1, np.full(9, 7.5), np.full(9, 20.0)))
    assert figures(decision.reasons[0])[1] == pytest.approx(0.2)  # min(2/10, 1/10) · 2


WRONG = [
    {"alpha": 0.0},
    {"alpha": 1.0},
    {"rate": 0.0},
    {"share": 1.0},
    {"clients": 0},
    {"memory": 0},
    {"rounds": -1},
    {"center": "own", "rounds": 1},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_parameters_out_of_range_are_refused(wrong):
    with pytest.raises(ParameterError, match=r"^evidence: "):
        make_policy("evidence", **wrong)
