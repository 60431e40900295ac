"""Multi-metric against loops in extended precision, and the authors' pairwise form."""

import math

import numpy as np
import pytest

from fedguard import Round, make_detector
from fedguard.core.errors import ParameterError

LONG = np.longdouble


def norm(v):
    return np.sqrt((v * v).sum())


def cosine(a, b):
    return (a * b).sum() / (norm(a) * norm(b))


def to_global(w, updates):
    """x' of the paper from the local models, in extended precision."""
    models = [w + u for u in updates]
    x = [(np.abs(m - w).sum(), norm(m - w), cosine(w, m)) for m in models]
    return [[sum(abs(a[k] - b[k]) for b in x) for k in range(3)] for a in x]


def pairwise(w, updates):
    models, rows = [w + u for u in updates], []
    for i, a in enumerate(models):
        others = [b for j, b in enumerate(models) if j != i]
        manhattan = sum(np.abs(a - b).sum() for b in others)
        length = sum(abs(norm(a) - norm(b)) for b in others)
        rows.append([manhattan, length, sum((1 - cosine(a, b)) ** 2 for b in others)])
    return rows


def whitened(rows):
    """√(xᵀ Σ⁻¹ x): columns divided by their maxima first, which changes nothing but the rounding."""
    x = np.array(rows, dtype=LONG)
    x = (x / x.max(0)).astype(float)
    deviations = x - x.mean(0)
    inverse = np.linalg.inv(sum(np.outer(v, v) for v in deviations) / (len(x) - 1))
    return [math.sqrt(v @ inverse @ v) for v in x]


@pytest.mark.parametrize("size", [1.0, 1e-3])
@pytest.mark.parametrize(("distances", "by_hand"), [("to_global", to_global), ("pairwise", pairwise)])
@pytest.mark.parametrize("seed", [0, 1])
def test_whitened_sums(seed, distances, by_hand, size):
    """With small updates the cosines are 1 up to 1e-6, and count as much as the lengths all the same."""
    rng = np.random.default_rng(seed)
    w = rng.normal(size=60).astype(np.float32)
    x = (size * rng.normal(size=(12, 60)) * rng.uniform(0.5, 2, (12, 1))).astype(np.float32)
    scores = make_detector("multi_metric", distances=distances)(Round(x, global_params=w))
    expected = whitened(by_hand(w.astype(LONG), x.astype(LONG)))
    np.testing.assert_allclose(scores.values, expected, rtol=1e-4)
    assert np.flatnonzero(~scores.suspects).tolist() == sorted(np.argsort(expected)[:3])


@pytest.mark.parametrize("distances", ["to_global", "pairwise"])
def test_units_do_not_matter(distances):
    rng = np.random.default_rng(2)
    w, x = rng.normal(size=30), rng.normal(size=(9, 30))
    detector = make_detector("multi_metric", distances=distances)
    base = detector(Round(x, global_params=w))
    for scale in (2.0**-40, 2.0**40):
        other = detector(Round(scale * x, global_params=scale * w))
        np.testing.assert_allclose(other.values, base.values, rtol=1e-6)


@pytest.mark.parametrize(
    ("keep", "n", "kept"),
    [(0.3, 10, 3), (0.3, 12, 3), (0.3, 13, 3), (0.3, 2, 1), (0.29, 100, 29), (1.0, 7, 7)],
)
def test_the_share_is_rounded_down_but_somebody_is_kept(keep, n, kept):
    x = np.random.default_rng(n).normal(size=(n, 8))
    scores = make_detector("multi_metric", keep=keep)(Round(x, global_params=np.ones(8)))
    assert (~scores.suspects).sum() == kept
    if kept < n:
        assert scores.values[~scores.suspects].max() <= scores.values[scores.suspects].min()


def test_ties_go_by_client_id():
    x = np.ones((5, 4))
    scores = make_detector("multi_metric", keep=0.4)(
        Round(x, ["e", "b", 7, "a", 3], global_params=np.ones(4))
    )
    assert len(set(scores.values)) == 1
    assert scores.suspects.tolist() == [True, True, False, True, False]


def test_a_metric_in_which_all_agree_is_left_out():
    """At a model of zero every cosine is undefined: what is left is the whitening of two metrics."""
    x = np.random.default_rng(4).normal(size=(9, 20)).astype(np.float32)
    scores = make_detector("multi_metric")(Round(x, global_params=np.zeros(20)))
    lengths = [(np.abs(row.astype(float)).sum(), norm(row.astype(float))) for row in x]
    sums = np.array([[sum(abs(a[k] - b[k]) for b in lengths) for k in range(2)] for a in lengths])
    inverse = np.linalg.inv(np.cov(sums.T))
    np.testing.assert_allclose(scores.values, [math.sqrt(v @ inverse @ v) for v in sums], rtol=1e-5)


@pytest.mark.parametrize("params", [{"keep": 1.1}, {"keep": math.nan}, {"distances": "l2"}])
def test_parameters_out_of_range_are_refused(params):
    with pytest.raises(ParameterError, match=f"multi_metric: .*{next(iter(params))}"):
        make_detector("multi_metric", **params)
