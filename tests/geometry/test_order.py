"""Means of order statistics that are computed together with the check of the updates."""

import numpy as np
import pytest
import torch

from fedguard import Round, make_aggregator
from fedguard.core.errors import TooFewClientsError
from fedguard.geometry import blocks, kernels, order
from fedguard.geometry.order import check_with_means, middle_means
from fedguard.geometry.updates import Updates

N, D = 12, 700


@pytest.fixture(params=["compiled", "NumPy"])
def matrix(request, monkeypatch):
    """Updates of a few blocks, whose means come from a kernel or from NumPy."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * N * 256)
    kernel = None
    if request.param == "compiled":
        pytest.importorskip("llvmlite", reason="needs the extra fast")
        made = kernels.Kernel(N, 3, N - 3)
        kernel = lambda n, low, high, _: made if (n, low, high) == (N, 3, N - 3) else None  # noqa: E731
    monkeypatch.setattr(order, "kernel_for", kernel or (lambda *_: None))
    return torch.from_numpy(np.random.default_rng(2).normal(size=(N, D))).float()


def test_one_pass_gives_the_means_and_the_check(matrix, monkeypatch):
    checked = Updates(matrix)
    check_with_means(checked, 3, N - 3)
    monkeypatch.setattr(Updates, "map_blocks", None)  # nothing is read again
    monkeypatch.setattr(Updates, "by_columns", None)
    assert checked.finite.all()
    found = middle_means(checked, 3, N - 3)
    monkeypatch.undo()
    assert torch.equal(found, middle_means(Updates(matrix), 3, N - 3))
    assert torch.equal(middle_means(checked, 3, N - 3), found), "kept for one call, then computed again"


def test_other_positions_are_computed_anew(matrix):
    checked = Updates(matrix)
    check_with_means(checked, 3, N - 3)
    assert torch.equal(middle_means(checked, 2, N - 2), middle_means(Updates(matrix), 2, N - 2))
    assert torch.equal(middle_means(checked, 3, N - 3), middle_means(Updates(matrix), 3, N - 3))


@pytest.mark.parametrize("place", [(0, 0), (N - 1, D - 1), (5, 300)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_updates_that_are_not_finite_are_left_out_as_ever(matrix, place, value):
    matrix[place] = value
    updates = Updates(matrix)
    check_with_means(updates, 3, N - 3)
    assert "finite" not in vars(updates)
    assert np.flatnonzero(~updates.finite).tolist() == [place[0]]
    rest = np.delete(np.arange(N), place[0])
    rule = make_aggregator("trimmed_mean", num_malicious=3)
    assert torch.equal(rule(Round(matrix)), rule(Round(matrix[rest])))


@pytest.mark.parametrize(
    "given", [{"faults": ["late"] + [None] * (N - 1)}, {"num_examples": [0] + [1] * (N - 1)}]
)
def test_clients_with_other_problems_are_left_out_as_ever(matrix, given):
    rule = make_aggregator("trimmed_mean", num_malicious=3)
    assert torch.equal(rule(Round(matrix, **given)), rule(Round(matrix[1:])))


def test_a_rule_of_ones_own_is_asked(matrix):
    class Doubled(type(make_aggregator("median"))):
        def aggregate(self, round, weights):
            return 2 * super().aggregate(round, weights)

    assert torch.equal(Doubled()(matrix), 2 * make_aggregator("median")(matrix))


def test_too_few_clients_are_refused_before_anything_is_read(matrix):
    with pytest.raises(TooFewClientsError):
        make_aggregator("trimmed_mean", num_malicious=6)(matrix)
