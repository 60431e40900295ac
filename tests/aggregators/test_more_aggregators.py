"""MeaMed, MDA, CAF and clipped clustering against their definitions, written here another way."""

import itertools

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from fedguard import Round, make_aggregator
from fedguard.aggregators.mda import closest_clients
from fedguard.core.errors import ParameterError, TooFewClientsError


def data(n, d, seed=0):
    """float32 values, held in float64 so that the oracles see the same numbers."""
    return np.random.default_rng(seed).standard_t(3, size=(n, d)).astype(np.float32).astype(np.float64)


def run(name, X, **params):
    return make_aggregator(name, **params)(Round(X)).double().numpy()


def close(result, expected):
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("n", "f"), [(n, f) for n in range(1, 9) for f in range((n + 1) // 2)])
def test_meamed_is_the_mean_around_numpys_median(n, f):
    X = data(n, 300, n)
    order = np.argsort(np.abs(X - np.median(X, axis=0)), axis=0)
    close(run("meamed", X, num_malicious=f), np.take_along_axis(X, order[: n - f], 0).mean(0))


def smallest_diameter(X, count):
    """Every subset: the least diameter, and all sets that have it."""
    apart = cdist(X, X)
    sets = list(itertools.combinations(range(len(X)), count))
    sizes = [apart[np.ix_(s, s)].max() for s in sets]
    least = min(sizes)
    return least, {s for s, size in zip(sets, sizes, strict=True) if size <= least * (1 + 1e-9)}


@pytest.mark.parametrize(("n", "f"), [(1, 0), (3, 1), (5, 2), (7, 0), (7, 1), (8, 3), (9, 4), (10, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_mda_averages_a_set_of_least_diameter(n, f, seed):
    X = data(n, 3, 10 * n + seed)
    _, best = smallest_diameter(X, n - f)
    kept = tuple(closest_clients(cdist(X, X, "sqeuclidean"), n - f))
    assert kept in best
    close(run("mda", X, num_malicious=f), X[list(kept)].mean(0))
    # Of several, it keeps those with the least total distance to all first.
    total = cdist(X, X, "sqeuclidean").sum(1)
    assert sorted(total[list(kept)]) == min(sorted(total[list(s)]) for s in best)
    shuffled = np.random.default_rng(seed).permutation(n)
    close(run("mda", X[shuffled], num_malicious=f), X[list(kept)].mean(0))


def test_mda_by_hand():
    """byzfl's own example: of three points on a line, the first two and the last two are equally close."""
    X = [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert run("mda", X, num_malicious=1).tolist() == [2.5, 3.5, 4.5]
    assert run("meamed", X, num_malicious=1).tolist() in ([2.5, 3.5, 4.5], [5.5, 6.5, 7.5])
    line = [[0.0], [1.0], [2.0], [2.5], [50.0], [51.0], [52.0]]
    assert run("mda", line, num_malicious=3).item() == pytest.approx((0 + 1 + 2 + 2.5) / 4)


def test_mda_of_many_clients_is_quick():
    X = data(60, 20, 1)
    X[:25] += 40
    assert closest_clients(cdist(X, X, "sqeuclidean"), 35) == list(range(25, 60))


def caf(X, f):
    """The definition in d dimensions, with NumPy's eigenvectors of the covariance matrix."""
    n = len(X)
    c, best, mean = np.ones(n), np.inf, None
    while c.sum() > n - 2 * f:
        mu = np.average(X, axis=0, weights=c)
        values, vectors = np.linalg.eigh(np.cov(X.T, aweights=c, bias=True).reshape(X.shape[1], -1))
        if values[-1] < best:
            best, mean = values[-1], mu
        tau = ((X - mu) @ vectors[:, -1]) ** 2
        c = c * (1 - tau / tau[c > 0].max()).clip(0)
    return mean


@pytest.mark.parametrize(("n", "f"), [(3, 1), (6, 1), (8, 3), (11, 5), (15, 4)])
@pytest.mark.parametrize("seed", range(3))
def test_caf_is_its_definition(n, f, seed):
    X = data(n, 6, n + seed)
    close(run("caf", X, num_malicious=f), caf(X, f))


def test_caf_leaves_far_clients_out_and_comes_to_an_end():
    """Were the largest τ taken over clients without weight, the filter would never end here."""
    X = data(10, 8, 3)
    X[0] += 1e6
    X[1] -= 1e5
    close(run("caf", X, num_malicious=3), caf(X, 3))
    assert np.abs(run("caf", X, num_malicious=3)).max() < 10
    assert run("caf", [[1.0, 2, 3], [4, 5, 6], [7, 8, 9]], num_malicious=1).tolist() == [4, 5, 6], (
        "byzfl's example"
    )
    assert run("caf", np.ones((5, 3)), num_malicious=2).tolist() == [1, 1, 1]
    assert run("caf", X, num_malicious=0) == pytest.approx(X.mean(0), rel=1e-5), (
        "f = 0: nothing is left to filter"
    )


def test_clipped_clustering_by_hand():
    """Three point right, two point up. The median norm is 2: the one of norm 10 is clipped."""
    X = [[1.0, 0.0], [2.0, 0.0], [10.0, 0.1], [0.0, 2.0], [0.1, 3.0]]
    tenth = np.array([10.0, 0.1]) * 2 / np.hypot(10, 0.1)
    close(run("clipped_clustering", X), np.mean([[1, 0], [2, 0], tenth], axis=0))
    close(run("clipped_clustering", X, tau=1.0), np.mean([[1, 0], [1, 0], tenth / 2], axis=0))


def test_clipped_clustering_remembers_norms():
    one, two = Round([[1.0, 0.0]] * 5), Round([[4.0, 0.0]] * 3, index=1)
    aggregator = make_aggregator("clipped_clustering")
    aggregator.commit(one, aggregator(one))
    assert aggregator(two).tolist() == [1, 0], "the median of five ones and three fours"
    again = make_aggregator("clipped_clustering")
    assert again(two).tolist() == [4, 0]
    again.load_state_dict(aggregator.state_dict())
    assert again(two).tolist() == [1, 0]


@pytest.mark.parametrize("name", ["meamed", "mda", "caf"])
def test_too_few_and_wrong_numbers(name):
    with pytest.raises(TooFewClientsError, match="at least 5"):
        run(name, data(4, 2), num_malicious=2)
    with pytest.raises(ParameterError, match="cannot be negative"):
        make_aggregator(name, num_malicious=-1)
