"""Losses by name against NumPy, augmentation, and early stopping."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from fedguard.contracts.data import LabeledData, Share
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError
from fedguard.training.augmentation import augmentation
from fedguard.training.check import check_training
from fedguard.training.early_stop import split
from fedguard.training.layout import bears_channels_last
from fedguard.training.local import train_client, trained
from fedguard.training.losses import loss_function
from fedguard.training.parameters import error_and_loss, flat_parameters, load_parameters, predict

OUTPUTS = np.array([[0.2, -1.0, 0.5], [2.0, 0.1, -0.3]], dtype=np.float32)
CLASSES = np.array([2, 0])
NUMBERS = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=np.float32)
ONE_HOT = np.eye(3)[CLASSES]


def log_softmax(z):
    return z - np.log(np.exp(z).sum(1, keepdims=True))


def entropy(z, y):
    return (np.log1p(np.exp(z)) - y * z).mean()


def by_huber(error, delta):
    size = np.abs(error)
    return np.where(size <= delta, error**2 / 2, delta * (size - delta / 2)).mean()


SMOOTHED = 0.9 * ONE_HOT + 0.1 / 3
CASES = [
    ("cross_entropy", CLASSES, -log_softmax(OUTPUTS)[[0, 1], CLASSES].mean()),
    (
        {"name": "cross_entropy", "label_smoothing": 0.1},
        CLASSES,
        -(SMOOTHED * log_softmax(OUTPUTS)).sum(1).mean(),
    ),
    ("nll", CLASSES, -OUTPUTS[[0, 1], CLASSES].mean()),
    ("bce", NUMBERS, entropy(OUTPUTS, NUMBERS)),
    ("bce", CLASSES, entropy(OUTPUTS, ONE_HOT)),
    ("mse", NUMBERS, ((OUTPUTS - NUMBERS) ** 2).mean()),
    ("mse", CLASSES, ((OUTPUTS - ONE_HOT) ** 2).mean()),
    ("l1", NUMBERS, np.abs(OUTPUTS - NUMBERS).mean()),
    ({"name": "huber", "delta": 0.5}, NUMBERS, by_huber(OUTPUTS - NUMBERS, 0.5)),
]


@pytest.mark.parametrize(("spec", "labels", "expected"), CASES)
def test_losses_by_hand(spec, labels, expected):
    found = loss_function(spec)(torch.tensor(OUTPUTS), torch.tensor(labels))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_a_loss_of_ones_own(monkeypatch):
    module = types.ModuleType("own_losses")
    module.cube = lambda logits, labels, power=3: (logits.abs() ** power).mean()
    module.table = lambda logits, labels: logits
    monkeypatch.setitem(sys.modules, "own_losses", module)
    loss = loss_function({"name": "own_losses:cube", "power": 2})
    assert float(loss(torch.tensor(OUTPUTS), None)) == pytest.approx((OUTPUTS**2).mean())
    with pytest.raises(ParameterError, match=r"returns \(2, 3\); it has to return one number"):
        check_training(LocalTraining(loss="own_losses:table"), "classification", (4,), 3)


@pytest.mark.parametrize(
    ("settings", "task", "message"),
    [
        ({"loss": "cross_entropi"}, "classification", "did you mean 'cross_entropy'"),
        ({"loss": {"name": "huber", "delt": 1}}, "regression", "did you mean 'delta'"),
        (
            {"loss": "cross_entropy"},
            "regression",
            "needs one class per sample, and the data are a regression",
        ),
        ({"loss": {"name": "cross_entropy", "label_smoothing": 2}}, "classification", "lies in"),
        ({"loss": "nowhere:loss"}, "classification", "training.loss: cannot load"),
        ({"augment": "flop"}, "classification", "did you mean 'flip'"),
        ({"augment": "flip"}, "classification", "needs images"),
        ({"patience": 2, "epochs": None, "steps": 3}, "classification", "patience counts epochs"),
    ],
)
def test_mistakes_are_found_before_training(settings, task, message):
    with pytest.raises(ParameterError, match=message):
        check_training(LocalTraining(**settings), task, (4,), 3)


def test_labels_that_do_not_fit_the_outputs_are_not_broadcast():
    with pytest.raises(ParameterError, match="as many outputs as a sample has labels"):
        loss_function("mse")(torch.zeros(4, 3), torch.zeros(4, 1))


def images(count=6, size=5):
    return torch.arange(count * size * size, dtype=torch.float32).view(count, 1, size, size)


def test_flip_mirrors_some_images_and_nothing_else():
    before = images(40)
    after = augmentation(["flip"], torch.Generator().manual_seed(3))(before)
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(after, before, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(after, before, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 10 < sum(mirrored) < 30


def test_crop_shifts_within_its_border():
    before = images(30)
    after = augmentation([{"name": "crop", "padding": 1}], torch.Generator().manual_seed(3))(before)
    padded = nn.functional.pad(before, (1,) * 4)
    shifts = set()
    for image, whole in zip(after, padded, strict=True):
        fits = [
            (y, x) for y in range(3) for x in range(3) if torch.equal(image, whole[:, y : y + 5, x : x + 5])
        ]
        assert len(fits) == 1
        shifts.add(fits[0])
    assert len(shifts) > 5


def test_augmentation_leaves_the_order_of_batches():
    seen = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(25, 2))
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0].amax((1, 2, 3)).tolist()))
    data, start = LabeledData(images(), torch.zeros(6, dtype=torch.int64)), flat_parameters(model)
    bears_channels_last(model, data.inputs)  # tries the model once
    seen.clear()
    for augment in ((), ("flip",)):  # flipping keeps the largest pixel
        settings = LocalTraining(batch_size=2, augment=augment, clip=1.0)
        train_client(model, start, data, settings, torch.Generator().manual_seed(1))
    assert seen[:3] == seen[3:]


def clients(count, seed=0):
    rng = np.random.default_rng(seed)
    inputs = torch.tensor(rng.normal(size=(count, 4)), dtype=torch.float32)
    return LabeledData(inputs, torch.tensor(rng.integers(0, 3, count)))


def test_early_stopping_returns_to_the_best_epoch():
    """Random labels: the loss of the held-out samples soon rises. By hand: train epoch by epoch, and look."""
    data, model = clients(20), nn.Linear(4, 3)
    start = flat_parameters(model)
    share = Share(data, torch.arange(20))
    mine, held = split(share, LocalTraining(holdout=0.25, patience=2))
    assert (len(mine.rows), len(held.rows)) == (15, 5)
    assert sorted([*mine.rows.tolist(), *held.rows.tolist()]) == list(range(20))
    rest = LabeledData(data.inputs[mine.rows], data.labels[mine.rows])
    losses, models = [], []
    for epochs in range(1, 31):
        settings = LocalTraining(epochs=epochs, batch_size=4, lr=0.3, clip=1e9)
        now = start + train_client(model, start, rest, settings, torch.Generator().manual_seed(1))
        outputs = predict(model, now, data.inputs[held.rows])
        losses.append(float(nn.functional.cross_entropy(outputs, data.labels[held.rows])))
        models.append(now)
    best = next(
        e for e in range(28) if min(losses[e + 1 : e + 3]) >= losses[e] and losses[e] == min(losses[: e + 1])
    )
    settings = LocalTraining(epochs=30, batch_size=4, lr=0.3, patience=2, holdout=0.25)
    (found,) = trained(model, start, [data], settings, [torch.Generator().manual_seed(1)])
    assert found.steps == 4 * (best + 3)
    torch.testing.assert_close(start + found.update, models[best], rtol=1e-5, atol=1e-6)


def test_a_client_with_one_sample_holds_out_none():
    data, model = clients(1), nn.Linear(4, 3)
    settings = LocalTraining(epochs=4, patience=1)
    (found,) = trained(model, flat_parameters(model), [data], settings, [torch.Generator().manual_seed(1)])
    assert found.steps == 4
    assert found.update.abs().sum() > 0


def test_errors_and_losses_by_task():
    model = nn.Linear(2, 3)
    load_parameters(model, torch.tensor([1.0, 0, 0, 1, 1, 1, 0, 0, -1]))
    inputs = torch.tensor([[1.0, 2.0], [-1.0, 0.5]])
    outputs = inputs.numpy() @ np.array([[1.0, 0], [0, 1], [1, 1]]).T + np.array([0, 0, -1.0])
    labels = np.array([[1, 0, 1], [1, 1, 0]], dtype=np.float32)
    data, vector = LabeledData(inputs, torch.tensor(labels)), flat_parameters(model)
    error, loss = error_and_loss(model, vector, data, task="multilabel")
    assert error == pytest.approx(((outputs > 0) != labels).mean())
    assert loss == pytest.approx(entropy(outputs, labels), rel=1e-5)
    error, loss = error_and_loss(model, vector, data, batch=1, task="regression")
    assert np.isnan(error)
    assert loss == pytest.approx(((outputs - labels) ** 2).mean(), rel=1e-5)
