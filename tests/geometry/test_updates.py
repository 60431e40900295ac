"""Updates: accepted inputs, refused inputs, caching, blocks."""

import numpy as np
import pytest
import torch

from fedguard import Updates
from fedguard.core.errors import RoundError
from fedguard.geometry.matrix import as_matrix, positions

X = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def read_only():
    array = X.astype(np.float32)
    array.setflags(write=False)
    return array


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "given",
    [
        X,
        X.tolist(),
        X.astype(np.float16),
        X.astype(np.int64),
        X.astype(np.uint8),
        X.astype(">f8"),
        np.asfortranarray(X),
        np.repeat(X, 2, axis=1)[:, ::2],
        X[::-1][::-1],
        read_only(),
        list(X),
        torch.tensor(X),
        torch.tensor(X, dtype=torch.bfloat16),
        torch.tensor(X, dtype=torch.float16),
        torch.tensor(X, dtype=torch.int32),
        torch.tensor(X, requires_grad=True),
        torch.tensor(X.T).T,
        [torch.tensor(row) for row in X],
        tuple(torch.tensor(row, requires_grad=True) for row in X),
    ],
    ids=lambda g: type(g).__name__ + str(getattr(g, "dtype", "")),
)
def test_any_numeric_matrix_becomes_plain_float32(given):
    matrix = Updates(given).matrix
    assert matrix.dtype == torch.float32
    assert matrix.is_contiguous()
    assert not matrix.requires_grad
    assert matrix.tolist() == X.tolist()


@pytest.mark.parametrize(
    "given",
    [
        5.0,
        [1.0, 2.0],
        np.zeros((2, 2, 2)),
        [[1.0, 2.0], [3.0]],
        [torch.zeros(2), torch.zeros(3)],
        [torch.zeros(()), torch.zeros(())],
        [["a", "b"]],
        [[None, 1.0]],
        [[True, False]],
        torch.tensor([[True, False]]),
        np.zeros((2, 2), dtype=complex),
        torch.zeros(2, 2, dtype=torch.complex64),
        [],
        None,
        {"a": [1.0]},
    ],
    ids=repr,
)
def test_anything_else_is_refused(given):
    with pytest.raises(RoundError):
        Updates(given)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("make", [np.asarray, torch.tensor])
def test_values_beyond_float32_count_as_not_finite(make):
    big = make([[1e39, 0.0], [3e38, 1e-50], [-1e300, 1.0]])
    assert Updates(big).finite.tolist() == [False, True, False]


def test_no_copy_where_possible():
    tensor = torch.zeros(2, 3)
    assert as_matrix(tensor).data_ptr() == tensor.data_ptr()


def test_geometry_is_computed_once_and_reused_by_take():
    updates = Updates(np.random.default_rng(0).normal(size=(5, 7)))
    for name in ("norms", "centered_gram", "inner_products", "sq_distances", "cosines", "mean", "finite"):
        assert getattr(updates, name) is getattr(updates, name), name
    part = updates.take([3, 1])
    for name in ("inner_products", "sq_distances", "cosines"):
        expected = getattr(updates, name)[[3, 1]][:, [3, 1]]
        assert torch.equal(getattr(part.take([1, 0]).take([1, 0]), name), expected)
        assert torch.equal(getattr(part, name), expected)
        assert getattr(part, name) is getattr(part, name)
    assert torch.equal(part.norms, updates.norms[[3, 1]])
    assert not {"centered_gram", "mean"} & set(vars(part)), "these are about the mean, which has changed"
    assert updates.take(range(5)) is updates


def test_by_hand():
    updates = Updates([[3.0, 4.0], [0.0, 0.0], [3.0, 0.0], [-3.0, -4.0]])
    assert updates.norms.tolist() == [5, 0, 3, 5]
    assert updates.mean.tolist() == [0.75, 0]
    assert updates.sq_distances.tolist() == [
        [0, 25, 16, 100],
        [25, 0, 9, 25],
        [16, 9, 0, 52],
        [100, 25, 52, 0],
    ]
    assert updates.inner_products.tolist() == [[25, 0, 9, -25], [0, 0, 0, 0], [9, 0, 9, -9], [-25, 0, -9, 25]]
    assert updates.cosines.tolist() == [[1, 0, 0.6, -1], [0, 0, 0, 0], [0.6, 0, 1, -0.6], [-1, 0, -0.6, 1]]
    assert updates.gram_about(2)[0, 3] == (3 - 3) * (-3 - 3) + (4 - 0) * (-4 - 0)
    assert len(updates) == updates.n == 4


@pytest.mark.parametrize("columns", [1, 3, 10])
def test_the_width_of_blocks_does_not_show(monkeypatch, columns):
    data = np.random.default_rng(1).normal(size=(4, 10))
    data[2, 7] = np.nan
    whole = Updates(data)
    monkeypatch.setattr("fedguard.geometry.blocks.BLOCK_BYTES", 8 * 4 * columns)
    monkeypatch.setattr("fedguard.geometry.blocks.MIN_WIDTH", 1)
    parts = Updates(data)
    assert len(list(parts.blocks())) == -(-10 // columns)
    assert parts.finite.tolist() == whole.finite.tolist() == [True, True, False, True]
    rows = [0, 1, 3]
    for name in ("norms", "centered_gram", "sq_distances", "cosines", "mean"):
        torch.testing.assert_close(
            getattr(parts.take(rows), name), getattr(whole.take(rows), name), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(
    ("clients", "expected"),
    [([], []), ([True, False, True], [0, 2]), (torch.tensor([False, True]), [1]), ([2, 0], [2, 0])],
)
def test_positions(clients, expected):
    index = positions(clients)
    assert index.tolist() == expected
    assert index.dtype == np.int64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_geometry_on_a_gpu():
    data = torch.randn(6, 1000, generator=torch.Generator().manual_seed(0))
    data[0] *= 1e20
    here, there = Updates(data), Updates(data.cuda())
    for name in ("norms", "sq_distances", "cosines"):
        torch.testing.assert_close(getattr(there, name).cpu(), getattr(here, name), rtol=1e-9, atol=1e-9)
    assert there.take([True, False, True, False, True, False]).sq_distances.is_cuda
