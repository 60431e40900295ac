"""FedProx, FL-WBC, FedNova's steps, FedSGD and the server optimizers, by hand."""

import numpy as np
import pytest
import torch

from fedguard import LabeledData, Round, make_aggregator
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError
from fedguard.core.state import pack, unpack
from fedguard.training.local import train_client
from fedguard.training.server_optimizer import ServerOptimizer


def problem(n=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 3)), rng.integers(0, 2, n), rng.normal(size=8).astype(np.float32)


def gradient(w, x, y):
    """Of the mean cross-entropy of softmax regression with 3 features and 2 classes."""
    z = np.exp(x @ w[:6].reshape(2, 3).T + w[6:])
    error = z / z.sum(1, keepdims=True) - np.eye(2)[y]
    return np.concatenate([(error.T @ x / len(x)).ravel(), error.mean(0)])


def train(x, y, start, seed=0, **settings):
    data = LabeledData(torch.tensor(x, dtype=torch.float32), torch.tensor(y))
    training = LocalTraining(epochs=None, batch_size=len(y), **settings)
    model = torch.nn.Linear(3, 2)
    return train_client(
        model, torch.tensor(start), data, training, torch.Generator().manual_seed(seed)
    ).numpy()


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_fedprox_pulls_back_to_the_start(momentum):
    x, y, start = problem()
    w, velocity = start.astype(float), np.zeros(8)
    for _ in range(6):
        velocity = momentum * velocity + gradient(w, x, y) + 0.7 * (w - start)
        w = w - 0.3 * velocity
    update = train(x, y, start, steps=6, lr=0.3, proximal=0.7, momentum=momentum)
    np.testing.assert_allclose(update, w - start, rtol=1e-4, atol=1e-6)
    assert np.linalg.norm(update) < np.linalg.norm(train(x, y, start, steps=6, lr=0.3, momentum=momentum))


def test_fedsgd_is_a_gradient_step_on_the_pooled_data():
    x, y, start = problem(30)
    parts = np.split(np.arange(30), [5, 18])
    updates = np.stack([train(x[p], y[p], start, steps=1, lr=0.5) for p in parts])
    round_ = Round(updates, num_examples=[len(p) for p in parts])
    np.testing.assert_allclose(
        make_aggregator("mean")(round_), -0.5 * gradient(start, x, y), rtol=1e-4, atol=1e-6
    )


def test_white_blood_cells_disturb_flat_directions_only():
    """Feature 0 is always zero: its weights never get a gradient, so that they are flat."""
    x, y, start = problem()
    x[:, 0] = 0
    plain = train(x, y, start, steps=8, lr=0.1)
    noisy = np.array([train(x, y, start, seed=s, steps=8, lr=0.1, wbc=1e-4) for s in range(120)])
    moved = noisy - plain
    flat = [0, 3]
    assert (moved[:, flat] != 0).all()
    assert np.abs(np.delete(moved, flat, 1)).max() < 1e-6, (
        "where the loss is curved, noise of 1e-4 is too weak"
    )
    per_step = 0.1 * 1e-4 * np.sqrt(7)  # the first of eight steps has no past
    assert moved[:, flat].std() == pytest.approx(per_step, rel=0.15)
    again = train(x, y, start, seed=3, steps=8, lr=0.1, wbc=1e-4)
    assert (again == noisy[3]).all()


@pytest.mark.parametrize(
    ("settings", "count", "expected"),
    [
        ({"epochs": 2, "batch_size": 8}, 20, 6),
        ({"epochs": None, "steps": 5}, 99, 5),
        ({"epochs": None, "steps": 3, "momentum": 0.5}, 9, 1 + 1.5 + 1.75),
        ({"epochs": None, "steps": 3, "lr": 0.1, "proximal": 2.0}, 9, 1 + 0.8 + 0.64),
    ],
)
def test_effective_steps_as_in_fednova(settings, count, expected):
    assert LocalTraining(**settings).effective_steps(count) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["proximal", "wbc"])
def test_negative_terms_are_refused(name):
    with pytest.raises(ParameterError, match=f"{name} is -1"):
        LocalTraining(**{name: -1.0})


def by_hand(name, aggregates, lr=0.1, b1=0.8, b2=0.9, tau=0.01):
    w, m, v = np.zeros(4), np.zeros(4), np.full(4, tau**2)
    for delta in aggregates:
        if name == "sgd":
            w = w + lr * delta
            continue
        if name == "momentum":
            m = b1 * m + delta
            w = w + lr * m
            continue
        m = delta if name == "adagrad" else b1 * m + (1 - b1) * delta
        if name == "adagrad":
            v = v + delta**2
        elif name == "adam":
            v = b2 * v + (1 - b2) * delta**2
        else:
            v = v - (1 - b2) * delta**2 * np.sign(v - delta**2)
        w = w + lr * m / (np.sqrt(v) + tau)
    return w


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad", "adam", "yogi"])
def test_server_optimizers(name):
    aggregates = np.random.default_rng(0).normal(size=(5, 4))
    settings = {"lr": 0.1, "beta1": 0.8, "beta2": 0.9, "tau": 0.01}
    optimizer, w = ServerOptimizer(name, **settings), torch.zeros(4)
    for t, delta in enumerate(aggregates):
        if t == 3:  # nobody was let through in between; and the state goes through a file
            assert torch.equal(optimizer.step(w, torch.zeros(4)), w)
            state = unpack(pack(optimizer.state_dict()))
            optimizer = ServerOptimizer(name, **settings)
            optimizer.load_state_dict(state)
        w = optimizer.step(w, torch.tensor(delta, dtype=torch.float32))
    np.testing.assert_allclose(w, by_hand(name, aggregates), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adagrad", "adam", "yogi"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 3e38])
def test_no_aggregate_ends_or_poisons_a_federation(rule, value, caplog):
    """One huge aggregate would leave √v infinite, and no later round would move the model."""
    optimizer, params = ServerOptimizer(rule, lr=2.0), torch.ones(3)
    params = optimizer.step(params, torch.tensor([0.5, -0.5, 0.1]))
    before = {key: part.clone() for key, part in optimizer.state_dict().items()}
    assert torch.equal(optimizer.step(params, torch.tensor([0.5, value, 0.1])), params)
    assert "is not finite; the model stays" in caplog.text
    after = optimizer.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(part, after[key]) for key, part in before.items())
    assert not torch.equal(optimizer.step(params, torch.ones(3)), params)


@pytest.mark.parametrize("rule", ["sgd", "momentum", "adam"])
def test_another_size_is_no_broadcast(rule):
    optimizer = ServerOptimizer(rule)
    for shape in ((1,), (3, 1), (4,), ()):
        with pytest.raises(ParameterError, match="shape"):
            optimizer.step(torch.zeros(3), torch.ones(shape))
    optimizer.step(torch.zeros(3), torch.ones(3))
    if rule != "sgd":
        with pytest.raises(ParameterError, match="earlier rounds"):
            optimizer.step(torch.zeros(4), torch.ones(4))


@pytest.mark.parametrize("rule", ["momentum", "adagrad", "adam"])
def test_what_becomes_of_an_aggregate_does_not_change_the_momenta(rule):
    one, other = ServerOptimizer(rule), ServerOptimizer(rule)
    for optimizer in (one, other):
        aggregate = torch.ones(3)
        optimizer.step(torch.zeros(3), aggregate)
        if optimizer is one:
            aggregate.fill_(9)
    assert torch.equal(one.step(torch.zeros(3), torch.ones(3)), other.step(torch.zeros(3), torch.ones(3)))


@pytest.mark.parametrize(
    "part", ["text", torch.tensor([1.0, float("nan")]), torch.ones(2, dtype=torch.int64), 3]
)
def test_a_state_that_is_none_is_refused(part):
    optimizer = ServerOptimizer("adam")
    optimizer.step(torch.zeros(2), torch.ones(2))
    before = optimizer.state_dict()
    with pytest.raises(ParameterError, match="square is no tensor of finite numbers"):
        optimizer.load_state_dict({"momentum": torch.zeros(2), "square": part})
    assert all(torch.equal(value, before[key]) for key, value in optimizer.state_dict().items())
