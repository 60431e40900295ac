"""Every registered aggregator keeps the contract."""

import dataclasses
import inspect

import numpy as np
import pytest
import torch

from fedguard import LabeledData, Round, Server, Updates
from fedguard import make_aggregator as plain_aggregator
from fedguard.contracts.local_training import LocalTraining
from fedguard.contracts.registry import aggregators
from fedguard.core.errors import ParameterError

NAMES = aggregators.names()
X = np.random.default_rng(0).standard_t(3, size=(11, 40)).astype(np.float32)
COUNTS = np.random.default_rng(1).integers(1, 900, 11).astype(float)
WEIGHTS = np.array([1, 0, 0.5, 1, 0, 1, 0.25, 1, 0, 0.75, 1])


class Linear(torch.nn.Module):
    """Two classes, d parameters."""

    def __init__(self, d):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(d))

    def forward(self, inputs):
        score = inputs @ self.weight
        return torch.stack([score, -score], 1)


def server_for(d):
    """What the needs of any aggregator ask for."""
    draw = torch.Generator().manual_seed(0)
    root = LabeledData(torch.randn(20, d, generator=draw), torch.zeros(20, dtype=torch.int64))
    training = LocalTraining(epochs=1, lr=0.5)
    return Server(model=Linear(d), root=root, training=training, input_shape=(d,), num_classes=2)


def make_aggregator(name):
    """An aggregator that is given whatever it needs with every round."""
    aggregator = plain_aggregator(name)
    if not aggregator.needs:
        return aggregator

    class Provided:
        min_clients = staticmethod(aggregator.min_clients)

        def __call__(self, updates, weights=None):
            round_ = updates if isinstance(updates, Round) else Round(updates)
            d = round_.updates.d
            given = {"server": server_for(d), "global_params": torch.zeros(d)}
            return aggregator(dataclasses.replace(round_, **given), weights)

    return Provided()


def unless_exempt(name, check):
    why = aggregators.get(name).exempt.get(check)
    if why:
        pytest.skip(why)


pytestmark = pytest.mark.parametrize("name", NAMES)


def close(first, second):
    torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def test_d_float32_numbers(name):
    for d in (1, 40):
        result = make_aggregator(name)(Round(X[:, :d], num_examples=COUNTS), WEIGHTS)
        assert result.shape == (d,)
        assert result.dtype == torch.float32
        assert not result.requires_grad
        assert result.isfinite().all()


def test_the_order_of_clients_does_not_show(name):
    order = np.random.default_rng(2).permutation(11)
    here = make_aggregator(name)(Round(X, num_examples=COUNTS), WEIGHTS)
    there = make_aggregator(name)(Round(X[order], num_examples=COUNTS[order]), WEIGHTS[order])
    close(here, there)


def test_weight_zero_is_absence(name):
    keep = np.flatnonzero(WEIGHTS)
    wild = X.copy()
    wild[WEIGHTS == 0] *= 1e30
    close(
        make_aggregator(name)(Round(wild, num_examples=COUNTS), WEIGHTS),
        make_aggregator(name)(Round(X[keep], num_examples=COUNTS[keep]), WEIGHTS[keep]),
    )


def test_an_unusable_update_is_absence(name):
    broken, counts = X.copy(), COUNTS.copy()
    broken[0, 3], counts[1] = np.nan, -1
    close(
        make_aggregator(name)(Round(broken, num_examples=counts)),
        make_aggregator(name)(Round(X[2:], num_examples=COUNTS[2:])),
    )


@pytest.mark.parametrize("weights", [np.zeros(11), None])
def test_nobody_left_gives_zeros(name, weights):
    updates = X if weights is not None else X * np.nan
    result = make_aggregator(name)(updates, weights)
    assert result.tolist() == [0.0] * 40
    assert result.dtype == torch.float32


def test_inputs_are_left_alone(name):
    tensor, counts, weights = torch.tensor(X), COUNTS.copy(), WEIGHTS.copy()
    counts.setflags(write=False)
    weights.setflags(write=False)
    result = make_aggregator(name)(Round(tensor, num_examples=counts), weights)
    assert torch.equal(tensor, torch.tensor(X))
    result.zero_()
    assert torch.equal(tensor, torch.tensor(X)), "the result is no view of the updates"


@pytest.mark.parametrize("scale", [1e-12, 1e-4, 1e20, 1e37])
def test_finite_in_finite_out(name, scale):
    hostile = X * np.float32(scale / np.abs(X).max())
    hostile[0] = 3.4e38
    hostile[1] = 0
    hostile[2] = hostile[3]
    assert make_aggregator(name)(hostile).isfinite().all()


def test_the_same_twice(name):
    aggregator = make_aggregator(name)
    round = Round(X, num_examples=COUNTS)
    first = aggregator(round, WEIGHTS)
    aggregator(X * 7)
    assert torch.equal(first, aggregator(Round(X, num_examples=COUNTS), WEIGHTS))
    assert torch.equal(first, aggregator(round, WEIGHTS)), "geometry known beforehand does not show"


def test_equal_updates_come_out_as_they_are(name):
    unless_exempt(name, "equal updates come out as they are")
    same = np.tile(X[0], (5, 1))
    close(make_aggregator(name)(same), torch.tensor(X[0]))


@pytest.mark.parametrize("kind", [np.asarray, torch.tensor, Updates, list])
def test_bare_updates_will_do(name, kind):
    assert torch.equal(make_aggregator(name)(kind(X)), make_aggregator(name)(Round(X)))


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
def test_weights_are_checked(name, weights):
    with pytest.raises(ParameterError, match="11 numbers in"):
        make_aggregator(name)(X, weights)


def test_the_smallest_round(name):
    aggregator = make_aggregator(name)
    n = aggregator.min_clients()
    assert aggregator(X[:n]).isfinite().all()
    if n > 1:
        with pytest.raises(ValueError, match=f"at least {n} clients, {n - 1} are left"):
            aggregator(X[: n - 1])


def test_only_aggregate_is_overridden(name):
    assert "__call__" not in vars(aggregators.get(name)), "checks live in the base class"
    assert list(inspect.signature(aggregators.get(name).aggregate).parameters) == ["self", "round", "weights"]
