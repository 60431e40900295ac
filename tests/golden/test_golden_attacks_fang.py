"""Fang et al.'s trimmed mean attack: the paper's intervals, coordinate by coordinate, in plain floats."""

import statistics

import numpy as np
import pytest
import torch
from scipy import stats

from fedguard.attack import UpdateView
from fedguard.registry import make_attack

D = 2000


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def situation(m, n, seed=0):
    """A global model, and heavy-tailed updates: mean and trimmed mean often differ in sign."""
    start = random(D, seed=seed)
    updates = 0.3 * random(n, D, seed=seed + 1) ** 3
    updates[:, :20] = 0.0  # coordinates that nobody changes
    return start, updates[:m], updates[m:]


def craft(start, own, benign, knowledge, **params):
    view = UpdateView(
        index=0,
        num_clients=len(own) + len(benign),
        global_params=start,
        initial_params=start,
        own_updates=own,
        generator=torch.Generator().manual_seed(5),
        benign_updates=benign if knowledge == "full" else None,
    )
    sent = make_attack("fang_trimmed_mean", knowledge=knowledge, **params).craft(view)
    return (sent.double() + start.double()).numpy()


def without_attack(values, m):
    """The aggregate of one coordinate before the attack."""
    kept = sorted(values)[m : len(values) - m] if len(values) > 2 * m else values
    return statistics.fmean(kept)


def full_interval(start, own, benign, b=2.0):
    """(branch, low, high) of one coordinate; all three arguments are about models, not updates."""
    change = without_attack([w - start for w in own + benign], len(own))
    if change > 1e-12:
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


@pytest.mark.parametrize(("m", "n"), [(3, 10), (4, 9), (5, 9)], ids=["trimmed", "one kept", "majority"])
@pytest.mark.parametrize("b", [2.0, 5.0])
def test_full_knowledge(m, n, b):
    start, own, benign = situation(m, n)
    intervals = [
        full_interval(float(start[j]), models(start, own, j), models(start, benign, j), b) for j in range(D)
    ]
    branches = [branch for branch, _, _ in intervals]
    assert min(branches.count(name) for name in ("min > 0", "min ≤ 0", "max > 0", "max ≤ 0")) > 50
    check(craft(start, own, benign, "full", b=b), intervals)


def test_partial_knowledge():
    start, own, benign = situation(4, 12)
    intervals = [partial_interval(float(start[j]), models(start, own, j)) for j in range(D)]
    branches = [branch for branch, _, _ in intervals]
    assert min(branches.count(name) for name in ("grows", "shrinks")) > 500
    check(craft(start, own, benign, "partial"), intervals)


def test_the_direction_is_that_of_the_trimmed_mean():
    """Where mean and trimmed mean disagree, the attack goes against the trimmed mean."""
    start, own, benign = situation(3, 10)
    crafted = craft(start, own, benign, "full")
    disagree = 0
    for j in range(20, D):
        changes = [w - float(start[j]) for w in models(start, own, j) + models(start, benign, j)]
        trimmed = without_attack(changes, 3)
        if statistics.fmean(changes) * trimmed < 0:
            disagree += 1
            honest = models(start, benign, j)
            above = all(value >= max(honest) - 1e-5 for value in crafted[:, j])
            below = all(value <= min(honest) + 1e-5 for value in crafted[:, j])
            assert below if trimmed > 0 else above
    assert disagree > 100


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
