"""LASA against its algorithm with loops in NumPy."""

import numpy as np
import pytest
import torch

from fedguard import Round, Server, make_aggregator
from fedguard.core.errors import NeedError, ParameterError


def model():
    return torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Linear(4, 3))


SHAPES = [(20, True), (4, False), (12, True), (3, False)]


def by_hand(X, sparsity, norm_radius, sign_radius):
    norms = [np.linalg.norm(row) for row in X]
    middle = sorted(norms)[(len(X) - 1) // 2]
    rows = [row * min(1, middle / norm) for row, norm in zip(X, norms, strict=True)]
    weights = [
        j
        for size, start in zip([s for s, _ in SHAPES], np.cumsum([0, 20, 4, 12]), strict=True)
        for j in range(start, start + size)
        if dict(SHAPES)[size]
    ]
    for row in rows:
        kept = int(len(weights) * (1 - sparsity))
        least = sorted((abs(row[j]) for j in weights), reverse=True)[kept - 1]
        for j in weights:
            if sparsity > 0 and abs(row[j]) <= least:
                row[j] = 0.0
    result, start = [], 0
    for size, _ in SHAPES:
        part = [row[start : start + size] for row in rows]
        lengths = np.array([np.sqrt(sum(v * v for v in p)) for p in part])
        share = np.array([np.sign(p).sum() / np.abs(np.sign(p)).sum() for p in part])
        positive = 0.5 * (1 + share * (1 - sparsity))
        good = []
        for i in range(len(X)):
            far = abs(lengths[i] - np.median(lengths)) / lengths.std()
            odd = abs(positive[i] - np.median(positive)) / positive.std()
            if far < norm_radius and odd < sign_radius:
                good.append(part[i])
        result += list(np.mean(good or part, axis=0))
        start += size
    return np.array(result)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("sparsity", "norm", "sign"), [(0.3, 1, 1), (0.0, 2, 1), (0.6, 0.5, 2), (0.3, 0.01, 0.01)]
)
def test_lasa(seed, sparsity, norm, sign):
    rng = np.random.default_rng(seed)
    X = rng.normal(0.1, 1, size=(9, 39)).astype(np.float32).astype(float)
    X[:2] = X[:2] * 5 - 1
    X[:, 20:24] += 0.3
    built = make_aggregator("lasa", sparsity=sparsity, norm_radius=norm, sign_radius=sign)
    found = built(Round(X, server=Server(model=model()))).double().numpy()
    np.testing.assert_allclose(found, by_hand(X, sparsity, norm, sign), rtol=1e-4, atol=1e-6)


def test_a_colluding_layer_is_left_out():
    """Three of nine send the last layer ten times as long: the mean of it is that of the others."""
    rng = np.random.default_rng(0)
    X = 1 + 0.01 * rng.normal(size=(9, 39))
    X[:3, 24:36] *= -3
    found = make_aggregator("lasa", sparsity=0.0)(Round(X, server=Server(model=model())))
    assert found[24:36].min() > 0.5


def test_what_lasa_needs():
    with pytest.raises(NeedError, match="model"):
        make_aggregator("lasa")(Round(np.ones((3, 39))))
    for name, value in (("sparsity", 1.0), ("norm_radius", 0.0), ("sign_radius", float("inf"))):
        with pytest.raises(ParameterError, match=name):
            make_aggregator("lasa", **{name: value})
