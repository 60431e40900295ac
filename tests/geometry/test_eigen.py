"""One eigenvector by Lanczos, against all of them by LAPACK."""

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from fedguard.geometry.eigen import DENSE, top_eigenvector


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
