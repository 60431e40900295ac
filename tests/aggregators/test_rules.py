"""Aggregation rules against NumPy, SciPy and loops written here."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import trim_mean

from fedguard import Round, make_aggregator
from fedguard.aggregators.krum import krum_scores, multi_krum, tolerated
from fedguard.core.errors import ParameterError, TooFewClientsError

RNG = np.random.default_rng


def data(n, d, seed=0):
    """float32 values, held in float64 so that the oracles see the same numbers."""
    return RNG(seed).standard_t(3, size=(n, d)).astype(np.float32).astype(np.float64)


def run(name, X, weights=None, counts=None, **params):
    return make_aggregator(name, **params)(Round(X, num_examples=counts), weights).double().numpy()


def close(result, expected, rtol=1e-6):
    np.testing.assert_allclose(result, expected, rtol=rtol, atol=rtol * np.abs(expected).max())


@pytest.mark.parametrize("weighting", ["examples", "uniform"])
@pytest.mark.parametrize("seed", range(3))
def test_mean_is_numpy_average(weighting, seed):
    X, rng = data(7, 30, seed), RNG(seed)
    counts, weights = rng.integers(1, 500, 7), rng.choice([0, 0.25, 1.0], 7, p=[0.3, 0.3, 0.4])
    weights[0] = 1
    share = weights * counts if weighting == "examples" else weights
    close(run("mean", X, weights, counts, weighting=weighting), np.average(X, axis=0, weights=share))


@pytest.mark.parametrize("claim", [1e-320, 1e-200, 1e200, 1.7e308])
def test_mean_survives_absurd_claims(claim):
    X = data(3, 4)
    close(run("mean", X, [0.5, 1, 0.5], [claim] * 3), np.average(X, axis=0, weights=[1, 2, 1]))
    close(run("mean", X, None, [claim, 1, 1]), X[1:].mean(0) if claim < 1 else X[0])


@pytest.mark.parametrize("n", range(1, 8))
def test_median_is_numpy_median(n):
    X = data(n + 2, 25, n)
    weights = np.r_[0, np.full(n, 0.3), 0]
    close(run("median", X, weights), np.median(X[1:-1], axis=0))


def test_median_of_the_largest_floats_is_finite():
    largest = float(np.finfo(np.float32).max)
    assert run("median", np.full((2, 2), largest)).tolist() == [largest] * 2


@pytest.mark.parametrize(("n", "beta"), [(n, b) for n in range(1, 9) for b in range((n + 1) // 2)])
def test_trimmed_mean_is_scipy_trim_mean(n, beta):
    X = data(n + 1, 25, n)
    expected = trim_mean(X[:-1], (beta + 0.5) / n, axis=0)  # SciPy cuts ⌊share · n⌋ at each end
    close(run("trimmed_mean", X, np.r_[np.ones(n), 0], num_malicious=beta), expected)


@pytest.mark.parametrize("n", range(1, 8))
def test_trimmed_mean_that_cuts_all_it_can_is_the_median(n):
    X = data(n, 25, n)
    close(run("trimmed_mean", X), np.median(X, axis=0))


@pytest.mark.parametrize(("n", "beta"), [(2, 1), (4, 2), (1, 1)])
def test_trimmed_mean_needs_more_than_it_cuts(n, beta):
    with pytest.raises(TooFewClientsError, match=f"at least {2 * beta + 1}"):
        run("trimmed_mean", data(n, 2), num_malicious=beta)


def slow_krum_scores(X, f):
    n, scores = len(X), []
    for i in range(n):
        squares = sorted(
            sum((a - b) ** 2 for a, b in zip(X[i], X[j], strict=True)) for j in range(n) if j != i
        )
        scores.append(sum(squares[: n - f - 2]))
    return scores


KRUM_CASES = [
    *(pytest.param(data(n, 5, n), f, id=f"n{n}f{f}") for n in (3, 5, 8) for f in range(n - 2)),
    pytest.param(data(4, 3)[[0, 1, 1, 1, 2, 3]], 1, id="duplicates"),
    pytest.param(np.r_[data(6, 3) * 1e-4, 1e20 + data(2, 3)], 2, id="huge outliers"),
    pytest.param(np.full((5, 3), 0.1), 1, id="all equal"),
]


@pytest.mark.parametrize(("X", "f"), KRUM_CASES)
def test_krum_by_hand(X, f):
    X = X.astype(np.float32).astype(np.float64)
    expected = slow_krum_scores(X, f)
    scores = krum_scores(Round(X).updates.sq_distances, f)
    np.testing.assert_allclose(scores, expected, rtol=1e-9)
    chosen = run("krum", X, num_malicious=f)
    assert chosen.tolist() == X[int(np.argmin(expected))].tolist()


def test_krum_ignores_clients_of_weight_zero():
    X = data(9, 4)
    X[:3] = X[3]  # three copies would win
    keep = np.arange(3, 9)
    expected = X[keep][int(np.argmin(slow_krum_scores(X[keep], 1)))]
    assert run("krum", X, np.r_[np.zeros(3), np.full(6, 0.5)], num_malicious=1).tolist() == expected.tolist()


def test_krum_assumes_the_most_that_its_proof_tolerates():
    assert [tolerated(n) for n in (1, 2, 3, 4, 5, 6, 7, 9, 100)] == [0, 0, 0, 0, 1, 1, 2, 3, 48]
    X = data(9, 4)
    assert run("krum", X).tolist() == run("krum", X, num_malicious=3).tolist()


def slow_multi_krum(X, f, count):
    left, chosen = list(range(len(X))), []
    while len(chosen) < count:
        scores = slow_krum_scores(X[left], f)
        chosen.append(left.pop(int(np.argmin(scores))))
    return chosen


@pytest.mark.parametrize(("n", "f"), [(9, 1), (9, 2), (12, 3), (7, 0), (5, 2)])
def test_multi_krum_by_hand(n, f):
    X = data(n, 5, n)
    distances = Round(X).updates.sq_distances
    assert multi_krum(distances, f) == slow_multi_krum(X, f, max(0, n - 2 * f - 2))
    for count in range(1, n - f - 1):
        assert multi_krum(distances, f, count) == slow_multi_krum(X, f, count)


def objective(v, X, weights):
    return float(weights @ np.linalg.norm(X - v, axis=1))


@pytest.mark.parametrize(("seed", "d"), list(itertools.product(range(4), (1, 2, 3, 10))))
def test_geometric_median_minimizes_its_objective(seed, d):
    X, weights = data(7, d, seed), RNG(seed).uniform(0.2, 1, 7)
    weights[seed] = 0
    result = run("geometric_median", X, weights)
    X, weights = np.delete(X, seed, 0), np.delete(weights, seed)
    starts = [X.mean(0), np.median(X, axis=0), X[0]]  # the objective is convex
    found = [
        minimize(
            objective,
            s,
            (X, weights),
            "Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 9999},
        )
        for s in starts
    ]
    assert objective(result, X, weights) <= min(f.fun for f in found) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("points", "weights", "expected"),
    [
        (
            [[0, 0], [1, 0], [0.5, 3**0.5 / 2]],
            None,
            [0.5, 3**0.5 / 6],
        ),  # Fermat point of an equilateral triangle
        (
            [[0, 0], [4, 0], [5, 3], [0, 2]],
            None,
            np.array([5, 3]) * (8 / 22),
        ),  # diagonals of a convex quadrangle
        ([[0, 0], [4, 0], [0, 3], [1, 1]], None, [1, 1]),  # a point inside the triangle of the other three
        ([[0], [1], [10]], None, [1]),  # on a line: the median
        ([[0], [1], [10], [11], [12]], None, [10]),
        ([[0, 0], [1, 0], [0, 1]], [1, 0.3, 0.3], [0, 0]),  # more weight than all others together
        ([[1, 2], [1, 2], [1, 2], [9, 9], [-5, 3]], None, [1, 2]),
        ([[3, 4]], None, [3, 4]),
        ([[3, 4]] * 4, None, [3, 4]),
        ([[0, 0], [1, 0], [0, 1], [9, 9]], [1, 1, 1, 0], None),
    ],
)
def test_geometric_median_of_known_points(points, weights, expected):
    if expected is None:  # the isogonic center of a right isosceles triangle, on its axis
        expected = [(1 - 1 / 3**0.5) / 2] * 2
    np.testing.assert_allclose(run("geometric_median", np.array(points, float), weights), expected, atol=2e-4)


def slow_geometric_median(X):
    v = np.median(X, axis=0)
    for _ in range(5000):
        pull = 1 / np.maximum(np.linalg.norm(X - v, axis=1), 1e-9)
        v = pull @ X / pull.sum()
    return v


@pytest.mark.parametrize("scale", [1e3, 1e9, 1e20, 1e30])
@pytest.mark.parametrize("hostile", [1, 4])
def test_geometric_median_is_not_moved_far_by_huge_updates(scale, hostile):
    X = data(10, 6) * 1e-2
    X[:hostile] *= scale
    X = X.astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(run("geometric_median", X), slow_geometric_median(X), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "params",
    [{"iterations": 0}, {"smoothing": 0}, {"tolerance": -1}, {"smoothing": "nan"}, {"smoothing": "inf"}],
)
def test_geometric_median_checks_its_parameters(params):
    with pytest.raises(ParameterError, match="geometric_median needs"):
        make_aggregator("geometric_median", **params)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", ["mean", "median", "trimmed_mean", "krum", "geometric_median"])
def test_the_same_on_a_gpu(name):
    X = torch.tensor(data(8, 100), dtype=torch.float32)
    torch.testing.assert_close(make_aggregator(name)(X.cuda()).cpu(), make_aggregator(name)(X))
