"""Gradients by class and label as products of what layers get and send back, against autograd's."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.data import LabeledData
from fedguard.detectors import _layer_products
from fedguard.detectors._generators import generators
from fedguard.detectors._label_gradients import Written, label_gradients
from fedguard.detectors._layer_products import LayerProducts, layer_products
from fedguard.geometry.updates import Updates
from fedguard.simulation.models import FedredefenseFmnistCnn
from fedguard.training.parameters import flat_parameters

CLASSES = 3


def perceptron(bias=True, **changes):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(2 * 8 * 8, 7, bias=bias), nn.ReLU(**changes), nn.Linear(7, CLASSES, bias=bias)
    )


def convolutions():
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(4, 6, (2, 3), dilation=(1, 2), padding=2, groups=2, bias=False),
        nn.MaxPool2d(2),
        nn.Tanh(),
        nn.Conv2d(6, 5, 1, padding_mode="zeros"),
        nn.Flatten(),
        nn.LazyLinear(CLASSES),
    )


def initialized(model):
    model(torch.zeros(2, 2, 8, 8))
    return model


class Twice(nn.Module):
    """Calls a layer twice."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(128, 6), nn.Linear(6, 6), nn.Linear(6, CLASSES)

    def forward(self, inputs):
        hidden = torch.relu(self.inner(torch.relu(self.first(inputs.flatten(1)))))
        return self.last(torch.relu(self.inner(hidden)))


class Borrowed(nn.Module):
    """Uses a layer's weights without a call, too."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(128, 6), nn.Linear(6, CLASSES)

    def forward(self, inputs):
        hidden = torch.tanh(self.first(inputs.flatten(1)))
        return self.last(torch.tanh(F.linear(hidden, self.first.weight[:, :6])))


class Sequences(nn.Module):
    """A linear layer on more than vectors."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 5), nn.Linear(5, CLASSES)

    def forward(self, inputs):
        return self.last(torch.relu(self.first(inputs)).mean((1, 2)))


FACTORED = {
    "perceptron": perceptron,
    "without biases": lambda: perceptron(bias=False),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(128, CLASSES)),
    "convolutions": lambda: initialized(convolutions()),
    "dropout": lambda: nn.Sequential(nn.Dropout(0.5), perceptron()),
}
WRITTEN_OUT = {
    "normalized": lambda: nn.Sequential(nn.BatchNorm2d(2), perceptron()),
    "called twice": Twice,
    "weights borrowed": Borrowed,
    "sequences": Sequences,
    "overwritten": lambda: perceptron(inplace=True),
    "circular padding": lambda: initialized(
        nn.Sequential(
            nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.LazyLinear(CLASSES)
        )
    ),
}


def samples(count=23, seed=0):
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=draw)
    return LabeledData(torch.randn(count, 2, 8, 8, generator=draw), labels)


def both(model, data):
    """Gradients as label_gradients gives them, and written out."""
    start = flat_parameters(model)
    found, written = label_gradients(model, start, data), generators(model, start, data)
    assert written is not None
    return found, Written(written), written


def assert_equal(found, written, d):
    scale = np.abs(written.gram).max()
    assert found.classes == written.classes == CLASSES
    assert found.gram == pytest.approx(written.gram, abs=1e-6 * scale)
    assert (found.gram == found.gram.T).all()
    updates = Updates(torch.randn(5, d, generator=torch.Generator().manual_seed(1)))
    expected = written.along(updates)
    assert found.along(updates) == pytest.approx(expected, abs=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("model", FACTORED.values(), ids=FACTORED)
def test_products_equal_the_gradients_written_out(model):
    torch.manual_seed(0)
    network = model()
    found, written, gradients = both(network, samples())
    assert isinstance(found, LayerProducts)
    assert_equal(found, written, gradients.shape[2])
    weights = torch.rand(CLASSES, CLASSES, dtype=torch.float64)
    expected = torch.einsum("st,std->d", weights, gradients.double())
    assert found.combined(weights) == pytest.approx(expected, abs=1e-6 * float(expected.abs().max()))


def test_products_of_a_network_of_a_paper():
    torch.manual_seed(0)
    model = FedredefenseFmnistCnn((2, 20, 20), CLASSES)
    draw = torch.Generator().manual_seed(0)
    data = LabeledData(torch.randn(30, 2, 20, 20, generator=draw), torch.arange(30) % CLASSES)
    found, written, gradients = both(model, data)
    assert isinstance(found, LayerProducts)
    assert_equal(found, written, gradients.shape[2])


@pytest.mark.parametrize("model", WRITTEN_OUT.values(), ids=WRITTEN_OUT)
def test_other_models_have_their_gradients_written_out(model):
    torch.manual_seed(0)
    network = model()
    data = samples()
    for _ in range(2):  # the second time, it is known
        found, written, gradients = both(network, data)
        assert isinstance(found, Written)
        assert_equal(found, written, gradients.shape[2])


def test_frozen_parameters_belong_to_no_gradient():
    model = perceptron()
    model[1].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    found, written, gradients = both(model, samples())
    assert isinstance(found, LayerProducts)
    assert gradients.shape[2] == 7 + 7 * CLASSES
    assert_equal(found, written, gradients.shape[2])


def test_updates_are_multiplied_a_few_at_a_time(monkeypatch):
    model = perceptron()
    found, written, gradients = both(model, samples())
    monkeypatch.setattr(_layer_products, "CHUNK", 2 * gradients.shape[2])
    assert_equal(found, written, gradients.shape[2])


def test_the_model_stays_as_it_is():
    model = nn.Sequential(nn.Dropout(0.5), perceptron())
    before = flat_parameters(model)
    random = torch.random.get_rng_state()
    label_gradients(model, before + 1, samples())
    assert torch.equal(flat_parameters(model), before)
    assert torch.equal(torch.random.get_rng_state(), random)
    assert all(part.training and not part._forward_hooks for part in model.modules())
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_no_gradients_without_a_sample_of_every_class():
    data = samples()
    rows = data.labels != 1
    part = LabeledData(data.inputs[rows], data.labels[rows])
    for model in (perceptron(), Twice()):
        assert label_gradients(model, flat_parameters(model), part) is None


def test_no_gradients_of_a_model_that_has_diverged():
    model = perceptron()
    start = flat_parameters(model)
    assert label_gradients(model, start, samples()) is not None
    assert label_gradients(model, start * float("inf"), samples()) is None


def test_no_gradients_beyond_float32():
    model, data = perceptron(bias=False), samples()
    huge = LabeledData(data.inputs * 1e30, data.labels)
    with torch.no_grad():
        model[1].weight.mul_(1e-33)
        model[3].weight.mul_(1e10)
    start = flat_parameters(model)
    assert layer_products(model, start, huge) is not None
    assert label_gradients(model, start, huge) is None
    assert generators(model, start, huge) is None
