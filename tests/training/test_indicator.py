"""The task against loops: SGD in NumPy and by torch.optim, BatchNorm statistics, shares of labels."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fedguard import LabeledData, Server
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.seeds import generator
from fedguard.training.indicator import PlantedTask, known, planted, seen_by
from fedguard.training.parameters import flat_parameters, flat_statistics, load_parameters
from fedguard.training.unlike import unlike_inputs

INPUTS, CLASSES = 5, 3
SHAPES = {"noise": (2, 6, 4), "photos": (3, 8, 8)}


def random_task(count, seed=0, shape=(INPUTS,)):
    rng = np.random.default_rng(seed)
    inputs = torch.from_numpy(rng.normal(size=(count, *shape)).astype(np.float32))
    return LabeledData(inputs, torch.from_numpy(rng.integers(0, CLASSES, count)))


def sgd_by_hand(start, data, epochs, lr, mu):
    """Softmax regression in float64: gradient, momentum 0.9, weight decay 0.0005, 0.8 lr after 10 epochs."""
    x, y = data.inputs.double().numpy(), data.labels.numpy()
    w, origin = start.astype(float), start.astype(float)
    speed = None
    for epoch in range(epochs):
        rate = lr * (0.8 if epoch >= 10 else 1.0)
        for first in range(0, len(x), 64):
            rows, wanted = x[first : first + 64], y[first : first + 64]
            weight, bias = w[: INPUTS * CLASSES].reshape(CLASSES, INPUTS), w[INPUTS * CLASSES :]
            gradient = np.zeros_like(w)
            for row, label in zip(rows, wanted, strict=True):
                logits = weight @ row + bias
                shares = np.exp(logits) / np.exp(logits).sum()
                error = shares - np.eye(CLASSES)[label]
                gradient += np.concatenate([np.outer(error, row).ravel(), error]) / len(rows)
            distance = math.sqrt(((w - origin) ** 2).sum())
            if distance > 0:
                gradient += mu / 2 * (w - origin) / distance
            gradient += 0.0005 * w
            speed = gradient if speed is None else 0.9 * speed + gradient
            w = w - rate * speed
    return w


@pytest.mark.parametrize("mu", [0.0, 0.7])
def test_planting_is_sgd_with_a_pull_towards_the_start(mu):
    model, data = nn.Linear(INPUTS, CLASSES), random_task(100)
    start = flat_parameters(model)
    found = planted(model, start, data, epochs=12, lr=0.05, mu=mu, draw=generator(0, "test"))
    np.testing.assert_allclose(found.numpy(), sgd_by_hand(start.numpy(), data, 12, 0.05, mu), atol=2e-5)
    assert torch.equal(flat_parameters(model), start), "the model was changed"


def small_net(dropout=0.0):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(dropout), nn.Flatten(), nn.Linear(64, 3)
    )


def test_planting_into_a_model_with_batch_norm():
    model, data = small_net(), random_task(128, shape=(1, 6, 6))
    start, before = flat_parameters(model), copy.deepcopy(model.state_dict())
    own = copy.deepcopy(model).train()
    origin = [p.detach().clone() for p in own.parameters()]
    optimizer = torch.optim.SGD(own.parameters(), lr=0.02, momentum=0.9, weight_decay=0.0005)
    for _ in range(3):
        for first in (0, 64):
            optimizer.zero_grad()
            squares = sum(((p - o) ** 2).sum() for p, o in zip(own.parameters(), origin, strict=True))
            loss = F.cross_entropy(own(data.inputs[first : first + 64]), data.labels[first : first + 64])
            (loss + (0.1 / 2 * squares.sqrt() if squares > 0 else 0)).backward()
            optimizer.step()
    found = planted(model, start, data, epochs=3, lr=0.02, mu=0.1, draw=generator(0, "test"))
    assert torch.allclose(found, flat_parameters(own), atol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_same_generator_gives_the_same_model_with_dropout():
    model, data = small_net(dropout=0.5), random_task(64, shape=(1, 6, 6))
    start = flat_parameters(model)
    torch.manual_seed(1)
    one = planted(model, start, data, 2, 0.02, 0.1, generator(0, "test"))
    torch.manual_seed(2)
    two = planted(model, start, data, 2, 0.02, 0.1, generator(0, "test"))
    other = planted(model, start, data, 2, 0.02, 0.1, generator(1, "test"))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_statistics_are_means_over_the_batches():
    model, data = small_net(), random_task(128, shape=(1, 6, 6))
    vector = flat_parameters(model) * 0.5
    own = seen_by(model, vector, data.inputs)
    conv = copy.deepcopy(model)
    load_parameters(conv, vector)
    with torch.no_grad():
        maps = [conv[0](data.inputs[first : first + 64]).double().numpy() for first in (0, 64)]
    mean = np.mean([m.mean((0, 2, 3)) for m in maps], axis=0)
    var = np.mean([m.var((0, 2, 3), ddof=1) for m in maps], axis=0)
    np.testing.assert_allclose(own[1].running_mean.numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(own[1].running_var.numpy(), var, rtol=1e-4)
    assert flat_statistics(model).tolist() == [0.0] * 4 + [1.0] * 4, "the model was changed"
    linear = nn.Linear(INPUTS, CLASSES)
    assert seen_by(linear, flat_parameters(linear), data.inputs) is linear


def test_what_a_model_knows():
    data, model = random_task(50, seed=4), nn.Linear(INPUTS, CLASSES)
    vector = np.random.default_rng(1).normal(size=18).astype(np.float32)
    right = {c: [] for c in range(CLASSES)}
    for row, label in zip(data.inputs.numpy(), data.labels.tolist(), strict=True):
        logits = vector[:15].reshape(3, 5) @ row + vector[15:]
        right[label].append(int(logits.argmax()) == label)
    found = known(model, torch.from_numpy(vector), data)
    assert found.overall == pytest.approx(sum(sum(r) for r in right.values()) / 50)
    assert found.best == pytest.approx(max(sum(r) / len(r) for r in right.values()))
    assert sum(right[found.label]) / len(right[found.label]) == found.best
    assert math.isnan(known(model, torch.full((18,), 3e38), data).best)


def test_the_seed_determines_the_task_and_labels_are_even():
    task = PlantedTask(200, "noise", standardize=True)
    one, again, other = (
        task.data(Server(input_shape=(1, 4, 4), num_classes=10, seed=seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one.inputs, again.inputs)
    assert torch.equal(one.labels, again.labels)
    assert not torch.equal(one.inputs, other.inputs)
    assert not torch.equal(one.labels, other.labels)
    assert len(one.labels) == 192, "whole batches only"
    counts = one.labels.bincount(minlength=10)
    assert counts.max() - counts.min() <= 1
    assert (
        len(PlantedTask(30, "noise", standardize=True).data(Server(input_shape=(2,), num_classes=3))[1]) == 30
    )
    with pytest.raises(NeedError, match="input_shape"):
        task.data(Server())
    with pytest.raises(ParameterError, match="samples is 1"):
        PlantedTask(1, "noise", standardize=True)


@pytest.mark.parametrize("source", SHAPES)
def test_sources_are_standardized_per_channel_or_pixels(source):
    shape = SHAPES[source]
    pixels = unlike_inputs(source, 80, shape, generator(0, "x"), standardize=False)
    inputs = unlike_inputs(source, 80, shape, generator(0, "x"))
    assert pixels.shape == inputs.shape == (80, *shape)
    assert pixels.min() >= 0
    assert pixels.max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in pixels}) == 80
    for channel in range(shape[0]):
        column = pixels[:, channel].double().numpy()
        expected = (column - column.mean()) / column.std()
        np.testing.assert_allclose(inputs[:, channel].numpy(), expected, atol=1e-4)


def test_a_file_of_images(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (9, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "other.npy", images)
    drawn = unlike_inputs(str(tmp_path / "other.npy"), 5, (1, 4, 4), generator(0, "x"), standardize=False)
    known_images = {tuple((image / np.float32(255)).ravel().tolist()) for image in images}
    assert {tuple(image.flatten().tolist()) for image in drawn} <= known_images
    assert len({tuple(image.flatten().tolist()) for image in drawn}) == 5


def wrong_file(tmp_path, array):
    np.save(tmp_path / "wrong.npy", array)
    return str(tmp_path / "wrong.npy")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((9, 3, 4)), "shape"),
        (np.zeros((3, 4, 4)), "5 are needed"),
        (np.full((9, 4, 4), 2.0), "outside"),
        (np.full((9, 4, 4), np.nan), "outside"),
        (np.array(["a"]), "not one array of numbers"),
    ],
)
def test_wrong_files(tmp_path, array, message):
    with pytest.raises(ParameterError, match=message):
        unlike_inputs(wrong_file(tmp_path, array), 5, (1, 4, 4), generator(0, "x"))


def test_sources_that_do_not_fit(tmp_path):
    with pytest.raises(ParameterError, match="photos are"):
        unlike_inputs("photos", 5, (30,), generator(0, "x"))
    with pytest.raises(ParameterError, match=r"must be an \.npy file"):
        unlike_inputs(str(tmp_path / "nothing.npy"), 5, (1, 4, 4), generator(0, "x"))
