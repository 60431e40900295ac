"""Modules of all kinds: Dropout, ``view``, frozen, tied and unused parameters."""

import copy
import pickle

import pytest
import torch
from torch import nn

from fedguard import LabeledData
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import RoundError
from fedguard.training.layout import bears_channels_last
from fedguard.training.local import train_client, trained
from fedguard.training.parameters import (
    flat_parameters,
    learned,
    load_parameters,
    predict,
    split_parameters,
)

STEPS = LocalTraining(epochs=None, steps=3, batch_size=4, lr=0.1)


def draw(seed=1):
    return torch.Generator().manual_seed(seed)


def images(count=12, channels=3):
    inputs = torch.randn(count, channels, 6, 6, generator=draw(0))
    return LabeledData(inputs, torch.arange(count) % 2)


def made(model, seed=0):
    """The model with parameters from a generator."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=draw(seed)))
    return model


def dropping():
    return made(nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.Dropout(0.5), nn.Linear(8, 2)))


class Viewer(nn.Module):
    """Calls ``view`` on images, which raises if they are channels-last."""

    def __init__(self, flatten=lambda x: x.view(len(x), -1)):
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.output = nn.Linear(4 * 16, 2)
        self.flatten = flatten

    def forward(self, x):
        return self.output(self.flatten(torch.relu(self.convolution(x))))


class FlatViewer(nn.Module):
    """No convolution: the inputs themselves are viewed."""

    def __init__(self):
        super().__init__()
        self.output = nn.Linear(108, 2)

    def forward(self, x):
        return self.output(x.view(x.size(0), -1))


def test_dropout_draws_from_the_clients_generator_only():
    model, data = dropping(), images()
    start = flat_parameters(model)
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    first = train_client(model, start, data, STEPS, draw())
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    torch.rand(7)
    assert torch.equal(train_client(model, start, data, STEPS, draw()), first)
    assert not torch.equal(train_client(model, start, data, STEPS, draw(2)), first)


def test_dropout_drops_in_training():
    """Oracle: a full batch, whose order does not matter, so that only the masks can differ."""
    model, data = dropping(), images()
    whole = LocalTraining(epochs=None, steps=1, batch_size=12, lr=0.1)
    start = flat_parameters(model)
    masked = [train_client(model, start, data, whole, draw(seed)) for seed in range(3)]
    assert not torch.allclose(masked[0], masked[1])
    assert not torch.allclose(masked[1], masked[2])
    model[2].p = 0.0
    same = [train_client(model, start, data, whole, draw(seed)) for seed in range(2)]
    assert torch.allclose(*same, atol=1e-6)


def test_the_order_of_the_batches_does_not_depend_on_dropout():
    """Dropout with p = 0 draws masks, and trains like a network without it."""
    model, data = dropping(), images()
    model[2].p = 0.0
    plain = nn.Sequential(model[0], model[1], model[3])
    start = flat_parameters(model)
    found = train_client(model, start, data, STEPS, draw())
    torch.testing.assert_close(train_client(plain, start, data, STEPS, draw()), found)


@pytest.mark.parametrize("make", [Viewer, FlatViewer])
def test_modules_that_call_view_train_and_predict(make):
    """Oracle: plain SGD with torch.optim on the same batches."""
    model, data = made(make()), images()
    start = flat_parameters(model)
    assert not bears_channels_last(model, data.inputs)
    found = train_client(model, start, data, STEPS, draw())
    theirs, generator = copy.deepcopy(model), draw()
    load_parameters(theirs, start)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for batch in torch.randperm(12, generator=generator).split(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(data.inputs[batch]), data.labels[batch]).backward()
        optimizer.step()
    torch.testing.assert_close(start + found, flat_parameters(theirs))
    torch.testing.assert_close(predict(model, start + found, data.inputs), theirs(data.inputs))
    stored = data.inputs.to(memory_format=torch.channels_last)
    torch.testing.assert_close(predict(model, start + found, stored), theirs(data.inputs))
    again = train_client(model, start, LabeledData(stored, data.labels), STEPS, draw())
    torch.testing.assert_close(again, found)


def test_only_modules_that_bear_it_are_stored_channels_last():
    bearing, viewing = Viewer(lambda x: x.flatten(1)), Viewer()
    data = images()
    for model, expected in ((bearing, True), (viewing, False)):
        assert bears_channels_last(model, data.inputs) is expected
        train_client(model, flat_parameters(model), data, STEPS, draw())
        assert model.convolution.weight.is_contiguous() is not expected


def test_trying_the_layout_leaves_everything_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Flatten(), nn.Linear(32, 2))
    model[1].eval()
    before, modes = pickle.dumps(model.state_dict()), [part.training for part in model.modules()]
    state = torch.random.get_rng_state()
    assert bears_channels_last(model, images().inputs)
    assert pickle.dumps(model.state_dict()) == before
    assert [part.training for part in model.modules()] == modes
    assert torch.equal(torch.random.get_rng_state(), state)


class Partly(nn.Module):
    """A frozen layer, a tied one, and a parameter that nothing uses."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Linear(3, 3)
        self.one = nn.Linear(3, 3)
        self.two = nn.Linear(3, 3)
        self.two.weight = self.one.weight
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen.requires_grad_(False)

    def forward(self, x):
        return self.two(torch.relu(self.one(self.frozen(x))))


def numbers(count=12):
    return LabeledData(torch.randn(count, 3, generator=draw(0)), torch.arange(count) % 3)


def test_frozen_parameters_belong_to_no_update():
    """Oracle: torch.optim on the learned parameters alone."""
    model, data = made(Partly()), numbers()
    assert list(learned(model)) == ["unused", "one.weight", "one.bias", "two.bias"]
    start = flat_parameters(model)
    assert len(start) == 2 + 9 + 3 + 3
    frozen = model.frozen.weight.clone()
    found = train_client(model, start, data, STEPS, draw())
    theirs, generator = made(Partly()), draw()
    optimizer = torch.optim.SGD([p for p in theirs.parameters() if p.requires_grad], lr=0.1)
    for batch in torch.randperm(12, generator=generator).split(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(theirs(data.inputs[batch]), data.labels[batch]).backward()
        optimizer.step()
    torch.testing.assert_close(start + found, flat_parameters(theirs))
    assert torch.equal(model.frozen.weight, frozen)
    assert not found[:2].any(), "what nothing uses does not move"
    torch.testing.assert_close(predict(model, start + found, data.inputs), theirs(data.inputs))


def test_a_vector_may_hold_the_frozen_parameters_too():
    """As a live guard gives it to a method that evaluates the model: all arrays, whose frozen ones stay."""
    model, data = made(Partly()), numbers()
    own, whole = made(Partly(), 5), torch.cat([p.detach().flatten() for p in made(Partly(), 5).parameters()])
    assert len(whole) == 29
    assert torch.equal(predict(model, whole, data.inputs), own(data.inputs))
    found = train_client(model, whole, data, STEPS, draw())
    assert len(found) == 29
    moved = split_parameters(model, found)
    assert not moved["frozen.weight"].any()
    assert moved["one.weight"].any()
    with pytest.raises(RoundError, match="17 parameters"):
        split_parameters(model, torch.zeros(28))


def test_a_model_frozen_for_evaluation_is_learned_as_a_whole():
    model, data = made(nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))), numbers()
    start = flat_parameters(model)
    expected = train_client(copy.deepcopy(model), start, data, STEPS, draw())
    model.requires_grad_(False)
    assert torch.equal(flat_parameters(model), start)
    assert torch.equal(train_client(model, start, data, STEPS, draw()), expected)


def test_small_networks_with_a_frozen_layer_are_not_trained_side_by_side():
    model, data = made(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))), numbers()
    model[0].requires_grad_(False)
    start = flat_parameters(model)
    first, second = trained(model, start, [data, data], STEPS, [draw(), draw(2)])
    assert first.update.shape == second.update.shape == (15,)
    assert first.update.any()
