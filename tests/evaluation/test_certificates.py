"""CRFL's certificate against SciPy's binomial test and the theorem's formula entry by entry."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import binomtest, norm

from fedguard import metrics
from fedguard.core.errors import ParameterError
from fedguard.training.smoothing import smoothed_votes

VOTES = [[950, 40, 10], [1000, 0, 0], [520, 480, 0], [0, 300, 700], [500, 500, 0]]


@pytest.mark.parametrize("alpha", [0.001, 0.05])
def test_exact_bounds_are_scipys(alpha):
    labels, lower, upper = metrics.vote_bounds(VOTES, alpha, "clopper_pearson")
    for votes, label, low, high in zip(VOTES, labels, lower, upper, strict=True):
        first, second = sorted(votes)[:0:-1]
        assert votes[label] == first
        above = binomtest(first, 1000, alternative="greater").proportion_ci(1 - alpha, "exact").low
        below = binomtest(second, 1000, alternative="less").proportion_ci(1 - alpha, "exact").high
        assert (low, high) == (pytest.approx(above, abs=1e-12), pytest.approx(below, abs=1e-12))


def test_hoeffding_bounds_are_the_papers_and_never_tighter():
    slack = math.sqrt(math.log(1 / 0.001) / 2 / 1000)
    _, lower, upper = metrics.vote_bounds(VOTES)
    np.testing.assert_allclose(lower, np.array([950, 1000, 520, 700, 500]) / 1000 - slack)
    np.testing.assert_allclose(upper, np.array([40, 0, 480, 300, 500]) / 1000 + slack)
    _, exact_lower, exact_upper = metrics.vote_bounds(VOTES, bound="clopper_pearson")
    assert (exact_lower >= lower).all()
    assert (exact_upper <= upper).all()


def radius_by_hand(p_a, p_b, weights, scales, steps, rates, shares, noise, smoothness, later):
    total = 0.0
    for p, gamma, tau, eta, share in zip(weights, scales, steps, rates, shares, strict=True):
        total += (p * gamma * tau * eta * share) ** 2
    product = 1.0
    for rho, sigma in later:
        product *= 2 * norm.cdf(rho / sigma) - 1
    gain = -math.log(1 - (math.sqrt(p_a) - math.sqrt(p_b)) ** 2) * noise**2
    return math.sqrt(gain / (2 * len(weights) * smoothness**2 * total * product))


def test_the_radius_is_the_theorems():
    attackers = {"weights": [0.1, 0.05], "scales": [10, 1], "steps": [3, 4], "rates": [0.01, 0.1]}
    shares, later = [0.2, 0.5], [(3.0, 2.0), (3.1, 1.0), (1.0, 4.0)]
    terms = [math.prod(values) for values in zip(*attackers.values(), shares, strict=True)]
    settings = {"noise": 0.01, "smoothness": math.sqrt(2 + 6 + 9), "later": later}
    labels, radii = metrics.certified_radius(VOTES, influence=terms, **settings)
    assert labels.tolist() == [0, 0, -1, 2, -1]
    _, high, low = metrics.vote_bounds(VOTES)
    for i in (0, 1, 3):
        hand = radius_by_hand(high[i], low[i], **attackers, shares=shares, **settings)
        assert radii[i] == pytest.approx(hand)
    assert radii[[2, 4]].tolist() == [0, 0]
    assert radii[1] > radii[0] > radii[3] > 0
    _, exact = metrics.certified_radius(VOTES, influence=terms, bound="clopper_pearson", **settings)
    assert (exact >= radii).all()


def test_noise_after_the_attack_widens_the_radius():
    few = metrics.certified_radius(VOTES, influence=[0.1], noise=0.1, smoothness=1, later=[(1, 2)])[1]
    more = metrics.certified_radius(VOTES, influence=[0.1], noise=0.1, smoothness=1, later=[(1, 2)] * 3)[1]
    np.testing.assert_allclose(more[few > 0], few[few > 0] / (2 * norm.cdf(0.5) - 1))


def test_votes_of_a_linear_model_follow_the_normal_law():
    """w·x + noise·x with x = (1, 0): the logits differ by N(gap, 2 σ²), and clipping halves the gap."""
    model = torch.nn.Linear(2, 2, bias=False)
    vector = torch.tensor([3.0, 0.0, 0.0, 4.0])  # norm 5, clipped to 2.5
    inputs = torch.tensor([[1.0, 0.0]])
    votes = smoothed_votes(model, vector, inputs, bound=2.5, noise=2.0, draws=4000)
    assert votes.sum() == 4000
    expected = norm.cdf(1.5 / (2 * math.sqrt(2)))
    assert votes[0, 0] / 4000 == pytest.approx(expected, abs=4 * math.sqrt(0.25 / 4000))
    again = smoothed_votes(model, vector, inputs, bound=2.5, noise=2.0, draws=4000)
    assert torch.equal(votes, again)


@pytest.mark.parametrize(
    ("votes", "changed", "message"),
    [
        ([[1, 2]], {"alpha": 1.0}, "alpha"),
        ([[1.5, 2]], {}, "counts"),
        ([[0, 0]], {}, "without any vote"),
        ([[1, 2]], {"influence": []}, "empty"),
        ([[1, 2]], {"noise": 0.0}, "noise"),
        ([[1, 2]], {"bound": "normal"}, "hoeffding"),
    ],
)
def test_what_makes_no_sense_is_an_error(votes, changed, message):
    settings = {"influence": [1.0], "noise": 1.0, "smoothness": 1.0} | changed
    with pytest.raises(ParameterError, match=message):
        metrics.certified_radius(votes, **settings)
