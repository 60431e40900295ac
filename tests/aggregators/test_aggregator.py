"""What the base class of aggregators does for all (each one's contract: tests/testing/test_checks.py)."""

import inspect

import numpy as np
import pytest
import torch

from fedguard import Round, Updates, make_aggregator
from fedguard.contracts.registry import aggregators
from fedguard.core.errors import ParameterError

X = np.random.default_rng(0).standard_t(3, size=(11, 40)).astype(np.float32)


def test_only_aggregate_is_overridden():
    """Checks live in the base class."""
    for name in aggregators.names():
        cls = aggregators.get(name)
        assert "__call__" not in vars(cls), name
        assert list(inspect.signature(cls.aggregate).parameters) == ["self", "round", "weights"], name


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, Updates, list])
def test_bare_updates_will_do(kind):
    assert torch.equal(make_aggregator("krum")(kind(X)), make_aggregator("krum")(Round(X)))


@pytest.mark.parametrize(
    "weights",
    [
        np.ones(3),
        np.ones((11, 1)),
        np.full(11, 1.5),
        np.full(11, -0.5),
        np.full(11, np.nan),
        1.0,
        [None] * 11,
    ],
)
def test_weights_are_checked(weights):
    with pytest.raises(ParameterError, match="11 numbers in"):
        make_aggregator("mean")(X, weights)


def test_too_small_a_round_is_refused_with_both_numbers():
    krum = make_aggregator("krum")
    n = krum.min_clients()
    with pytest.raises(ValueError, match=f"at least {n} clients, {n - 1} are left"):
        krum(X[: n - 1])


def test_geometry_that_is_known_already_does_not_show():
    round = Round(X)
    for name in ("krum", "median", "bulyan", "mean"):
        first = make_aggregator(name)(round)
        assert torch.equal(first, make_aggregator(name)(round)), name
        assert torch.equal(first, make_aggregator(name)(Round(X))), name
