"""The geometric median of many clients, read once per step, against Weiszfeld's loop in NumPy."""

import numpy as np
import pytest
import torch

from fedguard import Round, make_aggregator
from fedguard.aggregators import geometric_median as module

N = 600


@pytest.fixture
def calls(monkeypatch):
    """How often the updates are read for a step, and how often a Gram matrix takes over."""
    seen = {"reads": 0, "gram": 0}

    def counted(owner, name, key):
        inner = getattr(owner, name)

        def outer(*args):
            seen[key] += 1
            return inner(*args)

        monkeypatch.setattr(owner, name, outer)

    counted(module, "_read", "reads")
    counted(module.GeometricMedian, "_by_gram", "gram")
    return seen


def weiszfeld(X, weights, steps, smoothing=1e-12):
    X, v = X.astype(np.float64), np.average(X, axis=0, weights=weights)
    for _ in range(steps):
        pull = weights / np.maximum(np.linalg.norm(X - v, axis=1), smoothing)
        v = pull @ X / pull.sum()
    return v


def drawn(d=40, seed=0):
    return np.random.default_rng(seed).standard_t(3, size=(N, d)).astype(np.float32)


def one_far(X):
    X[:6] *= 1e6


def two_fifths_far(X):
    X[: 2 * N // 5] = 1e4 * np.abs(X[: 2 * N // 5])


def most_alike(X):
    X[: N // 2 + 30] = X[0] + 1e-4 * X[: N // 2 + 30]


def far_from_zero(X):
    X += 1e3


def as_they_are(X):
    pass


@pytest.mark.parametrize(
    ("change", "by_gram"),
    [(as_they_are, 0), (one_far, 1), (far_from_zero, 0), (two_fifths_far, 1), (most_alike, 1)],
)
def test_many_clients(calls, change, by_gram):
    X, weights = drawn(), np.random.default_rng(1).uniform(0.2, 1, N)
    change(X)
    found = make_aggregator("geometric_median")(Round(X), weights).double().numpy()
    expected = weiszfeld(X, weights, 400)
    # float32 rounds the result; near clients move less than the tolerance leaves open
    np.testing.assert_allclose(found, expected, rtol=2e-7, atol=1e-7 * np.abs(expected).max())
    assert calls["gram"] == by_gram
    assert 2 <= calls["reads"] <= 8


def test_all_updates_are_the_same(calls):
    X = np.repeat(drawn()[:1], N, axis=0)
    assert make_aggregator("geometric_median")(Round(X)).tolist() == X[0].tolist()
    assert calls == {"reads": 2, "gram": 0}


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_rfa_takes_its_steps_whoever_computes_them(calls, monkeypatch, iterations):
    X, counts = drawn(), np.random.default_rng(2).integers(1, 50, N)
    rule = make_aggregator("rfa", iterations=iterations)
    found = rule(Round(X, num_examples=counts))
    assert calls == {"reads": iterations, "gram": 0}
    np.testing.assert_allclose(found, weiszfeld(X, counts, iterations), rtol=0, atol=1e-7)
    monkeypatch.setattr(module, "MANY", N + 1)
    by_gram = rule(Round(X, num_examples=counts))
    assert calls["gram"] == 1
    torch.testing.assert_close(found, by_gram, rtol=0, atol=1e-7)
