"""The shared geometry against float64 brute force, over scales, near-duplicates and huge outliers."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedguard import Updates


def brute(matrix):
    """Everything from differences and products of pairs, in float64."""
    X = matrix.double().numpy()
    distances = ((X[:, None] - X[None]) ** 2).sum(2)
    products = (X[:, None] * X[None]).sum(2)
    lengths = np.sqrt((X**2).sum(1))
    scale = lengths[:, None] * lengths
    cosines = np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)
    return {"sq_distances": distances, "inner_products": products, "cosines": cosines}


def agrees(updates):
    expected = brute(updates.matrix)
    norms = np.sqrt(np.diag(expected["inner_products"]))
    np.testing.assert_allclose(updates.norms, norms, rtol=1e-12)
    np.testing.assert_allclose(updates.sq_distances, expected["sq_distances"], rtol=1e-9, atol=0)
    np.testing.assert_allclose(updates.cosines, expected["cosines"], rtol=0, atol=1e-12)
    error = np.abs(updates.inner_products.numpy() - expected["inner_products"])
    assert (error <= 1e-12 * norms[:, None] * norms[None, :]).all()
    centerd = updates.matrix.double().numpy() - updates.matrix.double().numpy().mean(0)
    lengths = np.linalg.norm(centerd, axis=1)
    assert (
        np.abs(updates.centered_gram.numpy() - centerd @ centerd.T) <= 1e-11 * (lengths.max() ** 2 + 1e-300)
    ).all()


@st.composite
def matrices(draw):
    """Clients around a common direction; some are near copies of others, zero, or far out."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, d = draw(st.integers(1, 7)), draw(st.integers(1, 60))
    X = draw(st.sampled_from([0.0, 1.0, 100.0])) * rng.normal(size=d) + rng.normal(size=(n, d))
    for i in range(1, n):
        kind = draw(st.sampled_from(["own", "own", "copy", "near", "zero", "far"]))
        if kind in ("copy", "near"):
            relative = draw(st.sampled_from([1e-3, 1e-4, 1e-5, 1e-6, 1e-7])) if kind == "near" else 0.0
            X[i] = X[i - 1] * (1 + relative * rng.normal(size=d))
        elif kind == "zero":
            X[i] = 0
        elif kind == "far":
            X[i] *= 10.0 ** draw(st.integers(3, 20))
    return (X * 10.0 ** draw(st.integers(-12, 12))).astype(np.float32)


@given(matrices())
def test_geometry_is_that_of_brute_force(X):
    agrees(Updates(X))


@pytest.mark.parametrize("d", [10, 1000, 10_000])
@pytest.mark.parametrize("relative", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_near_duplicates_are_told_apart(d, relative, scale):
    rng = np.random.default_rng(d)
    X = rng.normal(size=(6, d))
    X[3:] = X[0] * (1 + relative * rng.normal(size=(3, d)))
    agrees(Updates((scale * X).astype(np.float32)))


def test_a_chain_that_links_everybody(monkeypatch):
    """Neighbors on a circle: far closer to each other than to the mean, yet there is no smaller group."""
    calls, correct = [], Updates._correct
    monkeypatch.setattr(Updates, "_correct", lambda *a: calls.append(1) or correct(*a))
    angle = np.linspace(0, 2 * np.pi, 600, endpoint=False)
    agrees(Updates(np.c_[np.cos(angle), np.sin(angle)].astype(np.float32)))
    assert calls


def test_outliers_within_outliers(monkeypatch):
    """Taken as groups, not pair by pair: a huge update must not slow the server down."""
    monkeypatch.setattr(Updates, "_correct", lambda *_: pytest.fail("pair by pair"))
    rng = np.random.default_rng(0)
    X = rng.normal(size=(9, 50))
    for level, row in enumerate((0, 3, 5, 6)):
        X[row] *= 10.0 ** (5 * (level + 1))
    agrees(Updates(X.astype(np.float32)))


@given(matrices(), st.data())
def test_take_is_a_fresh_computation(X, data):
    some = data.draw(st.lists(st.integers(0, len(X) - 1), min_size=1, unique=True))
    whole, warm = Updates(X), Updates(X)
    names = ("norms", "sq_distances", "inner_products", "cosines", "centered_gram", "mean", "finite")
    for name in names:
        getattr(warm, name)
    for part in (whole.take(some), warm.take(some)):
        fresh = Updates(X[some])
        assert torch.equal(part.matrix, fresh.matrix)
        assert part.finite.tolist() == fresh.finite.tolist()
        agrees(part)
        torch.testing.assert_close(part.mean, fresh.mean, rtol=1e-12, atol=0)


@given(matrices(), st.randoms(use_true_random=False))
def test_permuting_clients_permutes_everything(X, random):
    order = list(range(len(X)))
    random.shuffle(order)
    here, there = Updates(X), Updates(X[order])
    for name in ("sq_distances", "cosines"):
        expected = getattr(here, name)[order][:, order]
        torch.testing.assert_close(
            getattr(there, name), expected, rtol=1e-9, atol=1e-12 if name == "cosines" else 0
        )
    torch.testing.assert_close(there.norms, here.norms[order], rtol=1e-12, atol=0)


@given(matrices())
def test_invariants(X):
    updates = Updates(X)
    D, C = updates.sq_distances, updates.cosines
    assert torch.equal(D, D.T)
    assert D.diagonal().count_nonzero() == 0
    assert (D >= 0).all()
    assert ((C >= -1) & (C <= 1)).all()
    for i, j in itertools.combinations(range(len(X)), 2):
        assert (D[i, j] == 0) == (X[i] == X[j]).all()


def ranked_right(distances, close, n):
    """The share of (pair of colluders, other pair) whose distances come out in the right order."""
    inner = [distances[i, j] for i, j in itertools.combinations(close, 2)]
    outer = [distances[i, j] for i, j in itertools.combinations(range(n), 2) if not {i, j} <= set(close)]
    return np.mean([a < b for a in inner for b in outer])


def test_colluders_among_a_million_parameters():
    """Updates of scale 1e-5 with a large common part; colluders differ by half as much as honest clients."""
    n, d, close = 8, 10**6, (1, 4, 6)
    generator = torch.Generator().manual_seed(0)
    common = 1e-5 * torch.randn(d, generator=generator, dtype=torch.float64)
    spread = torch.full((n, 1), 2e-9, dtype=torch.float64)
    spread[list(close)] = 1e-9
    X = (common + spread * torch.randn(n, d, generator=generator, dtype=torch.float64)).float()

    ours = Updates(X).sq_distances
    assert ranked_right(ours, close, n) == 1
    exact = [
        float((X[i].double() - X[j].double()).square().sum()) for i, j in itertools.combinations(range(n), 2)
    ]
    np.testing.assert_allclose([ours[i, j] for i, j in itertools.combinations(range(n), 2)], exact, rtol=1e-9)

    square = X.square().sum(1)
    textbook = square[:, None] + square[None, :] - 2 * X @ X.T
    assert ranked_right(textbook, close, n) < 0.9
