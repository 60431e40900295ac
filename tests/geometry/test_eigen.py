"""One eigenvector by Lanczos, against all of them by LAPACK."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from fedguard.geometry import eigen
from fedguard.geometry.eigen import DENSE, top_eigenvector
from fedguard.geometry.updates import Updates


def gram(n, seed, spike):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n, 900))
    rows[: n // 5] += spike * rng.normal(size=900)
    rows[1] = rows[0]
    rows -= rows.mean(0)
    return torch.from_numpy(rows @ rows.T)


@pytest.mark.parametrize("spike", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scale", [1.0, 1e-60, 1e120])
@pytest.mark.parametrize("n", [DENSE, DENSE + 1, 600])
def test_it_is_the_last_of_all(n, scale, spike):
    matrix = gram(n, 0, spike) * scale
    expected = torch.linalg.eigh(matrix / scale).eigenvectors[:, -1]
    found = top_eigenvector(matrix)
    assert found.norm().item() == pytest.approx(1)
    torch.testing.assert_close(found * (found @ expected).sign(), expected, rtol=0, atol=1e-11)
    assert found[0].item() == pytest.approx(found[1].item(), rel=1e-12)
    with threadpool_limits(limits=1):
        assert n <= DENSE or torch.equal(found, top_eigenvector(matrix))


@pytest.mark.parametrize("n", [3, 500])
def test_nothing_and_nearly_equal_eigenvalues(n):
    assert torch.isfinite(top_eigenvector(torch.zeros(n, n, dtype=torch.float64))).all()
    same = torch.eye(n, dtype=torch.float64)
    found = top_eigenvector(same)
    torch.testing.assert_close(same @ found, found)


@pytest.mark.parametrize(("spike", "by_gram"), [(1.0, False), (0.0, True)])
def test_of_many_clients_without_their_gram_matrix(monkeypatch, spike, by_gram):
    monkeypatch.setattr(eigen, "FEW", 100)
    monkeypatch.setattr(eigen, "READS", 10)
    monkeypatch.setattr("fedguard.geometry.blocks.BLOCK_BYTES", 1)
    rng = np.random.default_rng(3)
    rows = 5 + rng.normal(size=(400, 900))
    rows[:80] += spike * rng.normal(size=900)
    rows[1] = rows[0]
    updates = Updates(rows)
    found = eigen.top_of_centered_gram(updates)
    assert ("centered_gram" in vars(updates)) == by_gram, "it takes too many steps without a direction"
    centered = updates.matrix.numpy().astype(float) - updates.matrix.numpy().astype(float).mean(0)
    expected = torch.from_numpy(np.linalg.svd(centered, full_matrices=False)[0][:, 0])
    torch.testing.assert_close(found * (found @ expected).sign(), expected, rtol=0, atol=1e-11)
    assert found[0].item() == pytest.approx(found[1].item(), rel=1e-12)


def test_many_equal_clients_have_no_direction(monkeypatch):
    monkeypatch.setattr(eigen, "FEW", 2)
    assert eigen.top_of_centered_gram(Updates(np.ones((5, 3)))).isfinite().all()


@pytest.mark.parametrize(("n", "count"), [(300, 3), (300, 2), (2, 5)])
def test_the_first_pairs_of_all(monkeypatch, n, count):
    matrix = gram(n, 4, 1.0) if n > 2 else torch.tensor([[2.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    dense = eigen.top_eigenpairs(matrix, count)
    values, vectors = np.linalg.eigh(matrix.numpy())
    monkeypatch.setattr(eigen, "FEW", 100)
    for found in (dense, eigen.top_eigenpairs(matrix, count)):
        np.testing.assert_allclose(found[0], values[::-1][:count], rtol=1e-12)
        expected = vectors[:, ::-1][:, :count]
        np.testing.assert_allclose(np.abs((found[1].numpy() * expected).sum(0)), 1, rtol=1e-11)
    assert eigen.top_eigenpairs(torch.zeros(200, 200, dtype=torch.float64), 2)[0].tolist() == [0, 0]
