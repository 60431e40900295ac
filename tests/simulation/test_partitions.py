"""Partitions: what their parameters do, and what they refuse. Invariants: tests/property."""

import numpy as np
import pytest
import torch

from fedguard.core.errors import ParameterError
from fedguard.simulation.partitions import CATALOGUE, dirichlet, iid, label_probability, make_partition

CLASSES = 10
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(CLASSES), 600))


def shares(parts, labels=LABELS):
    """(n, L) class shares of every client."""
    counts = np.array([np.bincount(labels[part], minlength=CLASSES) for part in parts])
    return counts / counts.sum(1, keepdims=True)


def test_iid_sizes_differ_by_at_most_one():
    sizes = [len(part) for part in iid(LABELS, 7, np.random.default_rng(0))]
    assert max(sizes) - min(sizes) <= 1
    assert np.abs(shares(iid(LABELS, 7, np.random.default_rng(0))) - 0.1).max() < 0.05


def test_dirichlet_shares_have_the_moments_of_the_distribution():
    """Share of a class that a client gets: mean 1/n, variance (1/n)(1 − 1/n)/(nβ + 1)."""
    n, beta = 5, 0.5
    found = []
    for seed in range(200):
        parts = dirichlet(LABELS, n, np.random.default_rng(seed), beta=beta, min_examples=1)
        found += [np.bincount(LABELS[part], minlength=CLASSES) / 600 for part in parts]
    found = np.array(found)
    assert found.mean() == pytest.approx(1 / n)
    assert found.var() == pytest.approx((1 / n) * (1 - 1 / n) / (n * beta + 1), rel=0.05)


@pytest.mark.parametrize("equal", [False, True])
def test_small_beta_means_few_classes_per_client(equal):
    skew = [
        shares(dirichlet(LABELS, 20, np.random.default_rng(1), beta, equal, 1)).max(1).mean()
        for beta in (0.05, 1.0, 1000.0)
    ]
    assert skew[0] > 0.5 > skew[1] > 0.2 > skew[2]


def test_dirichlet_equal_sizes():
    parts = dirichlet(LABELS, 7, np.random.default_rng(2), equal_sizes=True)
    assert {len(part) for part in parts} == {len(LABELS) // 7}


def test_dirichlet_redraws_until_everybody_has_enough():
    least = [
        min(map(len, dirichlet(LABELS, 20, np.random.default_rng(s), min_examples=30))) for s in range(20)
    ]
    assert min(least) >= 30
    without = [
        min(map(len, dirichlet(LABELS, 20, np.random.default_rng(s), min_examples=1))) for s in range(20)
    ]
    assert min(without) < 30, "otherwise this test shows nothing"


@pytest.mark.parametrize(("p", "n"), [(0.5, 10), (0.5, 23), (0.1, 20), (1.0, 10)])
def test_label_probability_against_expected_counts(p, n):
    """Group l expects p of class l and (1 − p)/(L − 1) of the others, spread evenly over its clients."""
    parts = label_probability(LABELS, n, np.random.default_rng(3), p)
    counts = np.array([np.bincount(LABELS[part], minlength=CLASSES) for part in parts])
    if p <= 1 / CLASSES:
        assert np.abs(shares(parts) - 1 / CLASSES).max() < 0.06
        return
    group = counts.argmax(1)  # p is far above chance: the commonest class tells the group
    sizes = np.bincount(group, minlength=CLASSES)
    assert sorted(sizes) == sorted(len(g) for g in np.array_split(np.arange(n), CLASSES))
    for client in range(n):
        for label in range(CLASSES):
            to_group = p if label == group[client] else (1 - p) / (CLASSES - 1)
            chance = to_group / sizes[group[client]]
            tolerance = 5 * np.sqrt(600 * chance * (1 - chance))
            assert abs(counts[client, label] - 600 * chance) <= tolerance


def test_labels_may_be_a_tensor():
    from_tensor = make_partition("label_probability", torch.from_numpy(LABELS), 10, np.random.default_rng(4))
    from_array = make_partition("label_probability", LABELS, 10, np.random.default_rng(4))
    assert all(np.array_equal(a, b) for a, b in zip(from_tensor, from_array, strict=True))


def test_parameters_reach_the_function():
    parts = make_partition("dirichlet", LABELS, 6, np.random.default_rng(0), equal_sizes=True, beta=5)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(parts, dirichlet(LABELS, 6, np.random.default_rng(0), 5, True), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "n", "params", "message"),
    [
        ("irichlet", 5, {}, "did you mean 'dirichlet'"),
        ("iid", 5, {"beta": 1}, "partition iid: unknown parameter 'beta'"),
        ("dirichlet", 5, {"bta": 1}, "did you mean 'beta'"),
        ("dirichlet", 5, {"beta": "much"}, "'beta'"),
        ("dirichlet", 5, {"beta": 0}, "positive"),
        ("dirichlet", 5, {"beta": float("inf")}, "positive"),
        ("dirichlet", 5, {"min_examples": 0}, "min_examples"),
        ("dirichlet", 5, {"min_examples": 1201}, "1 … 1200"),
        ("dirichlet", 200, {"beta": 0.01}, "1000 draws.*raise beta"),
        ("label_probability", 9, {}, "at least 10 clients"),
        ("label_probability", 20, {"p": 0}, r"\(0, 1\]"),
        ("label_probability", 20, {"p": 1.1}, r"\(0, 1\]"),
        ("label_probability", 5000, {}, "got no sample"),
        ("shards", 5, {"s": 0}, "1 … 1200 shards"),
        ("shards", 5, {"s": 1201}, "1 … 1200 shards"),
        ("k_classes", 5, {"k": 0}, "1 … 10"),
        ("k_classes", 5, {"k": 11}, "1 … 10"),
        ("quantity", 5, {"beta": 0}, "positive"),
        ("quantity", 5, {"sigma": -1}, "0 … 10"),
        ("quantity", 5, {"min_examples": 1201}, "1 … 1200"),
        ("quantity", 5, {"distribution": "normal"}, "'lognormal' or 'dirichlet'"),
        ("quantity", 200, {"beta": 0.01, "min_examples": 5}, r"raise beta \(0.01\)"),
        ("quantity", 200, {"distribution": "lognormal", "sigma": 9}, r"lower sigma \(9\)"),
        ("similarity", 5, {"gamma": 1.1}, "0 … 1"),
        ("natural", 5, {}, "does not say which client"),
        ("feature_skew", 5, {"noise": -1}, "noise is -1"),
        ("feature_skew", 5, {"noise": 0}, "nothing changes"),
        ("feature_skew", 5, {"of": {"beta": 1}}, "give a partition's name"),
        ("feature_skew", 5, {"of": "shrads"}, "did you mean 'shards'"),
        ("feature_skew", 5, {"of": {"name": "dirichlet", "bta": 1}}, "did you mean 'beta'"),
        *((name, 0, {}, "0 clients") for name in CATALOGUE),
        *((name, 6001, {}, "6001 clients") for name in CATALOGUE),
    ],
)
def test_what_cannot_be_is_refused(name, n, params, message):
    with pytest.raises(ParameterError, match=message):
        make_partition(name, LABELS, n, np.random.default_rng(0), **params)
