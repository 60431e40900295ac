"""Fang et al.'s attacks on trimmed mean and median: the paper's intervals, by coordinate, in plain floats."""

import statistics

import numpy as np
import pytest
import torch
from scipy import stats

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.registry import make_attack

D = 2000
ATTACKS = ["fang_trimmed_mean", "fang_median"]


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def situation(m, n, seed=0):
    """A global model, and heavy-tailed updates: mean and trimmed mean often differ in sign."""
    start = random(D, seed=seed)
    updates = 0.3 * random(n, D, seed=seed + 1) ** 3
    updates[:, :20] = 0.0  # coordinates that nobody changes
    return start, updates[:m], updates[m:]


def craft(start, own, benign, knowledge, attack="fang_trimmed_mean", **params):
    view = UpdateView(
        index=0,
        num_clients=len(own) + len(benign),
        global_params=start,
        initial_params=start,
        own_updates=own,
        generator=torch.Generator().manual_seed(5),
        benign_updates=benign if knowledge == "full" else None,
    )
    sent = make_attack(attack, knowledge=knowledge, **params).craft(view)
    return (sent.double() + start.double()).numpy()


def aggregate(values, m, attack="fang_trimmed_mean"):
    """What the rule under attack makes of one coordinate."""
    if attack == "fang_median":
        return statistics.median(values)
    kept = sorted(values)[m : len(values) - m] if len(values) > 2 * m else values
    return statistics.fmean(kept)


def goes_below(start, own, benign, attack, goal):
    """Whether the attack goes below all benign models in one coordinate."""
    m, own, benign = len(own), [w - start for w in own], [w - start for w in benign]
    before = aggregate(own + benign, m, attack)
    if goal == "directed":
        return before > 1e-12
    beyond = 1.0 if len(own + benign) > 2 * m else 0.0  # any number will do where it is trimmed
    up = aggregate([max(benign) + beyond] * m + benign, m, attack) - before
    down = aggregate([min(benign) - beyond] * m + benign, m, attack) - before
    return abs(down) - abs(up) > 1e-12


def full_interval(start, own, benign, b=2.0, attack="fang_trimmed_mean", goal="directed"):
    """(branch, low, high) of one coordinate; all three arguments are about models, not updates."""
    if goes_below(start, own, benign, attack, goal):
        low = min(benign)
        return ("min > 0", low / b, low) if low > 0 else ("min ≤ 0", b * low, low)
    high = max(benign)
    return ("max > 0", high, b * high) if high > 0 else ("max ≤ 0", high, high / b)


def partial_interval(start, own):
    mean, std = statistics.fmean(own), statistics.pstdev(own)
    if mean - start > 1e-12:
        return "grows", mean - 4 * std, mean - 3 * std
    return "shrinks", mean + 3 * std, mean + 4 * std


def models(start, updates, j):
    return [float(start[j].double() + u[j].double()) for u in updates]


def check(crafted, intervals):
    """Everything is in its interval, spread uniformly over it, and drawn anew for each client."""
    shares = []
    for j, (_, low, high) in enumerate(intervals):
        for value in crafted[:, j]:
            assert low - 1e-5 <= value <= high + 1e-5
        if high - low > 1e-2:
            shares.append((crafted[:, j] - low) / (high - low))
    shares = np.array(shares)
    assert stats.kstest(shares.ravel(), "uniform").pvalue > 0.01
    assert np.abs(np.corrcoef(shares.T) - np.eye(len(crafted))).max() < 0.1


@pytest.mark.thin(3)
@pytest.mark.parametrize(("m", "n"), [(3, 10), (4, 9), (5, 9)], ids=["trimmed", "one kept", "majority"])
@pytest.mark.parametrize("b", [2.0, 5.0])
@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("goal", ["directed", "deviation"])
def test_full_knowledge(m, n, b, attack, goal):
    start, own, benign = situation(m, n)
    intervals = [
        full_interval(float(start[j]), models(start, own, j), models(start, benign, j), b, attack, goal)
        for j in range(D)
    ]
    branches = [branch for branch, _, _ in intervals]
    assert min(branches.count(name) for name in ("min > 0", "min ≤ 0", "max > 0", "max ≤ 0")) > 50
    check(craft(start, own, benign, "full", attack, b=b, goal=goal), intervals)


def test_rules_and_goals_differ():
    """Each decides otherwise in many a coordinate, so that none can stand in for another."""
    start, own, benign = situation(3, 10)
    parts = [(float(start[j]), models(start, own, j), models(start, benign, j)) for j in range(D)]
    sides = [
        [goes_below(*part, attack, goal) for part in parts]
        for attack in ATTACKS
        for goal in ("directed", "deviation")
    ]
    for i, one in enumerate(sides):
        for other in sides[:i]:
            assert sum(a != b for a, b in zip(one, other, strict=True)) > 100


@pytest.mark.parametrize(("attack", "goal"), [(a, g) for a in ATTACKS for g in ("directed", "deviation")])
def test_no_other_side_does_better(attack, goal):
    """sᵀ(w − w') and ‖w − w'‖₁ of Equations 1 and 5 against every choice of one side per coordinate."""
    start, own, benign = situation(3, 10)
    crafted = craft(start, own, benign, "full", attack, goal=goal) - start.double().numpy()
    for j in range(20, 300):
        honest = [float(u[j]) for u in benign]
        before = aggregate([float(u[j]) for u in own] + honest, 3, attack)
        sign = (1 if before > 0 else -1) if goal == "directed" else None

        def gain(sent, honest=honest, before=before, sign=sign):
            moved = before - aggregate(sent + honest, 3, attack)
            return abs(moved) if sign is None else sign * moved

        best = max(gain([side] * 3) for side in (max(honest) + 1, min(honest) - 1))
        assert gain(crafted[:, j].tolist()) == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("attack", ATTACKS)
def test_partial_knowledge(attack):
    start, own, benign = situation(4, 12)
    intervals = [partial_interval(float(start[j]), models(start, own, j)) for j in range(D)]
    branches = [branch for branch, _, _ in intervals]
    assert min(branches.count(name) for name in ("grows", "shrinks")) > 500
    check(craft(start, own, benign, "partial", attack), intervals)


def test_the_direction_is_that_of_the_trimmed_mean():
    """Where mean and trimmed mean disagree, the attack goes against the trimmed mean."""
    start, own, benign = situation(3, 10)
    crafted = craft(start, own, benign, "full")
    disagree = 0
    for j in range(20, D):
        changes = [w - float(start[j]) for w in models(start, own, j) + models(start, benign, j)]
        trimmed = aggregate(changes, 3)
        if statistics.fmean(changes) * trimmed < 0:
            disagree += 1
            honest = models(start, benign, j)
            above = all(value >= max(honest) - 1e-5 for value in crafted[:, j])
            below = all(value <= min(honest) + 1e-5 for value in crafted[:, j])
            assert below if trimmed > 0 else above
    assert disagree > 100


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_direction_of_the_mean_of_all(attack):
    """By request: against the mean of all before-attack updates, not of the benign or own ones alone."""
    start, own, benign = situation(3, 10)
    crafted = craft(start, own, benign, "full", attack, direction="mean")
    differ = {"rule": 0, "own": 0, "benign": 0}
    for j in range(20, D):
        mine, theirs = ([w - float(start[j]) for w in models(start, part, j)] for part in (own, benign))
        mean = statistics.fmean(mine + theirs)
        others = {
            "rule": aggregate(mine + theirs, 3, attack),
            "own": statistics.fmean(mine),
            "benign": statistics.fmean(theirs),
        }
        for name, other in others.items():
            differ[name] += mean * other < 0
        honest = models(start, benign, j)
        below = all(value <= min(honest) + 1e-5 for value in crafted[:, j])
        above = all(value >= max(honest) - 1e-5 for value in crafted[:, j])
        assert below if mean > 0 else above
    assert min(differ.values()) > 100


@pytest.mark.parametrize("knowledge", ["full", "partial"])
def test_where_nothing_changes_the_direction_counts_as_minus_one(knowledge):
    start, own, benign = situation(3, 10)
    crafted = craft(start, own, benign, knowledge)[:, :20]
    top = start[:20].double().numpy()
    if knowledge == "partial":  # no spread either: nowhere to go
        assert crafted == pytest.approx(np.tile(top, (3, 1)), abs=1e-6)
    else:  # upwards, by at most b (or 1/b) times
        assert (crafted >= top - 1e-6).all()
        assert (crafted <= np.where(top > 0, 2 * top, top / 2) + 1e-6).all()
        assert (crafted > top + 1e-3).mean() > 0.8


def test_partial_knowledge_of_clients_that_cancel_out():
    """μ is where the global model is, σ = 2: s = −1, upwards by 3σ to 4σ."""
    own = torch.tensor([[2.0, -2.0], [-2.0, 2.0]])
    crafted = craft(torch.zeros(2), own, own, "partial")
    assert ((crafted >= 6) & (crafted <= 8)).all()


def test_only_benign_clients_make_the_extremes():
    """An own client far out moves neither w_max nor w_min."""
    start, own, benign = situation(3, 10)
    far = own.clone()
    far[0] = torch.tensor([100.0, -100.0]).repeat(D // 2)
    crafted = craft(start, far, benign, "full")
    assert np.abs(crafted).max() < 2.1 * (benign + start).abs().max() < 100


def test_the_trimmed_mean_moves_against_its_direction():
    """The goal of §3.1, sᵀ(w − w′) large: no coordinate moves along with s."""
    start, own, benign = situation(3, 10)
    honest = torch.cat([own, benign]).double().numpy()
    attacked = np.concatenate([craft(start, own, benign, "full") - start.double().numpy(), honest[3:]])
    before = np.sort(honest, axis=0)[3:-3].mean(0)
    after = np.sort(attacked, axis=0)[3:-3].mean(0)
    moved = np.sign(before) * (before - after)
    assert moved.min() > -1e-6
    assert moved.mean() > 0.01
