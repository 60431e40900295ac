"""Mixed updates against NumPy's product in float64; replaced rows against the same updates made anew."""

import numpy as np
import pytest
import torch

from fedguard.geometry.mixed import MixedUpdates
from fedguard.geometry.order import middle_means
from fedguard.geometry.overwritten import overwritten
from fedguard.geometry.updates import Updates

N, D = 40, 30_011  # three blocks


@pytest.fixture
def updates():
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def coefficients():
    draw = np.random.default_rng(1).random((N, N))
    return draw / draw.sum(1, keepdims=True)


def test_the_matrix_is_the_product_in_float64(updates, coefficients):
    found = MixedUpdates(Updates(updates), coefficients)
    expected = coefficients @ updates.double().numpy()
    np.testing.assert_allclose(found.matrix.numpy(), expected, rtol=0, atol=6e-8 * np.abs(expected).max())
    assert (found.n, found.d) == (N, D)


def test_blocks_have_the_bits_of_the_matrix(updates, coefficients):
    stored = MixedUpdates(Updates(updates), coefficients)
    whole = stored.matrix
    passing = MixedUpdates(Updates(updates), coefficients)
    assert torch.equal(middle_means(passing, 2, 5), middle_means(Updates(whole), 2, 5))
    assert not passing._stored, "one pass stores nothing"
    torch.testing.assert_close(passing.norms, Updates(whole).norms, rtol=0, atol=0)
    assert passing._stored, "a second pass would compute everything again"
    other = MixedUpdates(Updates(updates), coefficients)
    assert torch.equal(other.sq_distances, Updates(whole).sq_distances)
    assert torch.equal(other.take([1, 4]).matrix, whole[[1, 4]])


def test_means_of_finite_updates_are_finite_without_a_look(updates, coefficients):
    assert MixedUpdates(Updates(updates), coefficients).finite.all()
    huge = np.finfo(np.float32).max
    assert MixedUpdates(Updates([[huge], [huge]]), np.full((1, 2), 0.5)).matrix.isfinite().all()
    sums = MixedUpdates(Updates([[huge, 1.0], [huge, 1.0]]), np.eye(2) + 1)
    assert sums.finite.tolist() == [False, False]
    updates[3, 5] = np.inf
    holes = MixedUpdates(Updates(updates), np.eye(N))
    assert not holes.finite.any(), "0 · Inf is NaN"


@pytest.mark.parametrize("copy", [True, False])
def test_replaced_rows(updates, copy):
    updates[0, 0], before = np.nan, updates.clone()
    before[0, 0] = np.nan
    given = Updates(updates)
    assert not given.finite[0]
    rows = torch.stack([torch.ones(D), torch.full((D,), np.inf)])
    found = overwritten(given, [2, 4], rows, copy=copy)
    expected = before.clone()
    expected[[2, 4]] = rows
    torch.testing.assert_close(found.matrix, expected, rtol=0, atol=0, equal_nan=True)
    assert found.finite.tolist() == Updates(expected).finite.tolist()
    assert (found.matrix.data_ptr() == updates.data_ptr()) is not copy
    if copy:
        torch.testing.assert_close(updates, before, rtol=0, atol=0, equal_nan=True)
