"""Models: sizes, initialization from a generator alone, what they refuse."""

import math
import pickle

import pytest
import torch
from torch import nn

from fedguard.core.errors import ParameterError
from fedguard.simulation.models import CATALOGUE, build_model, models
from fedguard.training.parameters import flat_parameters, load_parameters, predict, split_parameters

IMAGE = (1, 28, 28)
CNNS = ["fedredefense_fmnist_cnn", "fedredefense_cifar_cnn", "fang_cnn", "lenet"]


def build(name, shape=IMAGE, classes=10, seed=0, **params):
    return build_model(name, shape, classes, torch.Generator().manual_seed(seed), **params)


@pytest.mark.parametrize(
    ("name", "shape", "params", "expected"),
    [
        ("logistic_regression", IMAGE, {}, 784 * 10 + 10),
        ("logistic_regression", (30,), {}, 30 * 10 + 10),
        ("mlp", (30,), {}, 30 * 64 + 64 + 64 * 10 + 10),
        ("mlp", (1, 8, 8), {"hidden": [20, 5]}, 64 * 20 + 20 + 20 * 5 + 5 + 5 * 10 + 10),
        ("fedredefense_fmnist_cnn", IMAGE, {}, 139_960),
        ("fedredefense_cifar_cnn", (3, 32, 32), {}, 896 + 18_496 + 64 * 36 * 512 + 512 + 5_130),
        ("fang_cnn", IMAGE, {}, 300 + 13_550 + 50 * 25 * 200 + 200 + 2_010),
        ("lenet", IMAGE, {}, 44_426),
        ("lenet", (3, 32, 32), {}, 62_006),
        ("resnet20", (3, 32, 32), {}, 269_722),
        ("bilstm", (80,), {}, 10 * 8 + 2 * 4 * 64 * (8 + 64 + 2) + 10 * 128 + 10),
        ("bilstm", (5,), {"embedding": 3, "hidden": 2}, 10 * 3 + 2 * 4 * 2 * (3 + 2 + 2) + 10 * 4 + 10),
    ],
)
def test_number_of_parameters_and_output_shape(name, shape, params, expected):
    model = build(name, shape, **params)
    assert len(flat_parameters(model)) == expected
    assert model(torch.zeros(3, *shape)).shape == (3, 10)


@pytest.mark.parametrize("name", CATALOGUE)
def test_initialized_like_torch_but_from_the_generator_only(name):
    """Oracle: torch's own constructors, fed by the global generator with the same seed."""
    shape = (80,) if name == "bilstm" else IMAGE
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = flat_parameters(models.get(name)(shape, 10))
        torch.manual_seed(8)
        before = torch.random.get_rng_state()
        found = flat_parameters(build(name, shape, seed=7))
        assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    assert torch.equal(found, expected)
    assert torch.equal(found, flat_parameters(build(name, shape, seed=7)))
    assert not torch.equal(found, flat_parameters(build(name, shape, seed=9)))


@pytest.mark.parametrize("name", [name for name in CATALOGUE if name != "bilstm"])
def test_models_can_be_pickled_and_vectorized(name):
    model = build(name)
    inputs = torch.rand(2, 5, *IMAGE, generator=torch.Generator().manual_seed(1))
    copy = pickle.loads(pickle.dumps(model))  # noqa: S301
    assert torch.equal(copy(inputs[0]), model(inputs[0]))
    parameters = split_parameters(model, flat_parameters(model))
    together = torch.vmap(lambda x: torch.func.functional_call(model, parameters, (x,)))(inputs)
    assert torch.allclose(together[1], model(inputs[1]), atol=1e-5)


@pytest.mark.parametrize("name", CNNS)
def test_images_that_are_too_small_are_refused_with_the_smallest_size(name):
    least = 16 if name == "lenet" else 10
    assert build(name, (1, least, least))(torch.zeros(1, 1, least, least)).shape == (1, 10)
    for shape in ((1, least - 1, 28), (1, 28, least - 1), (1, 8, 8), (1, 1, 1)):
        with pytest.raises(ParameterError, match=f"{name}.*the smallest is {least}×{least}"):
            build(name, shape)


@pytest.mark.parametrize("name", [*CNNS, "resnet20"])
def test_data_that_are_no_images_are_refused(name):
    with pytest.raises(ParameterError, match="works on images"):
        build(name, (30,))


def test_text_is_what_bilstm_wants():
    model = build("bilstm", (6,), 4, hidden=3)
    for wrong in (0.5, -1.0, 4.0, math.nan):
        inputs = torch.ones(2, 6)
        inputs[1, 3] = wrong
        with pytest.raises(ParameterError, match="numbers of characters, 0 to 3"):
            model(inputs)
    with pytest.raises(ParameterError, match=r"works on text.*tiny_shakespeare"):
        build("bilstm", (1, 8, 8))
    with pytest.raises(ParameterError, match="hidden is 0"):
        build("bilstm", (6,), hidden=0)


def test_bilstm_is_two_lstms_by_hand():
    """Oracle: the equations of Hochreiter and Schmidhuber with forget gates, in float64, step by step."""
    model = build("bilstm", (7,), 5, embedding=3, hidden=2).double()
    weights = dict(model.lstm.named_parameters())
    inputs = torch.tensor([[0, 4, 2, 2, 1, 3, 0]], dtype=torch.float64)
    read = model.embedding.weight[inputs[0].long()]

    def last_state(rows, suffix):
        state = cell = torch.zeros(2, dtype=torch.float64)
        for row in rows:
            gates = weights[f"weight_ih_l0{suffix}"] @ row + weights[f"bias_ih_l0{suffix}"]
            gates = gates + weights[f"weight_hh_l0{suffix}"] @ state + weights[f"bias_hh_l0{suffix}"]
            enter, forget, new, leave = gates.split(2)
            cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
            state = leave.sigmoid() * cell.tanh()
        return state

    both = torch.cat([last_state(read, ""), last_state(read.flip(0), "_reverse")])
    assert torch.allclose(model(inputs)[0], model.output(both), atol=1e-12)


def test_bilstm_trains_with_its_own_parameters():
    """``predict`` swaps parameters; the LSTM must not go on with those it was built with."""
    model = build("bilstm", (6,), 4, hidden=3)
    inputs = torch.tensor([[0.0, 1, 2, 3, 2, 1]])
    other = flat_parameters(build("bilstm", (6,), 4, seed=1, hidden=3))
    before = model(inputs)
    found = predict(model, other, inputs)
    load_parameters(model, other)
    assert torch.equal(found, model(inputs))
    assert not torch.equal(found, before)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("lenett", {}, "did you mean 'lenet'"),
        ("lenet", {"hidden": [3]}, "model lenet: unknown parameter 'hidden'"),
        ("mlp", {"hiden": [3]}, "did you mean 'hidden'"),
        ("mlp", {"hidden": []}, "at least one width"),
        ("mlp", {"hidden": [3, 0]}, "at least 1"),
        ("mlp", {"hidden": ["wide"]}, "hidden"),
    ],
)
def test_unknown_names_and_parameters(name, params, message):
    with pytest.raises(ParameterError, match=message):
        build(name, **params)


def test_bounds_of_the_initialization():
    for layer in build("fedredefense_fmnist_cnn"):
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / math.sqrt(layer.weight[0].numel())
            assert 0.9 * bound < layer.weight.abs().max() <= bound
            assert layer.bias.abs().max() <= bound


def normalized(x, weight, bias):
    """Group normalization by hand, 8 groups of neighboring channels."""
    grouped = x.reshape(len(x), 8, -1)
    mean = grouped.mean(2, keepdim=True)
    spread = (grouped - mean).square().mean(2, keepdim=True)
    x = ((grouped - mean) / (spread + 1e-5).sqrt()).reshape(x.shape)
    return x * weight[:, None, None] + bias[:, None, None]


def test_resnet20_is_what_the_paper_says():
    """Oracle: He et al. §4.2 by hand, on parameters away from their first values."""
    model = build("resnet20", (3, 32, 32))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    inputs = torch.randn(2, 3, 32, 32, generator=generator)
    left = [parameter.detach() for parameter in model.parameters()][::-1]

    def convolved(x, stride):
        weight, scale, shift = left.pop(), left.pop(), left.pop()
        return normalized(nn.functional.conv2d(x, weight, stride=stride, padding=1), scale, shift)

    x = convolved(inputs, 1).clamp(min=0)
    for channels in (16, 32, 64):
        for block in range(3):
            stride = 2 if channels > 16 and block == 0 else 1
            shortcut = torch.zeros(2, channels, 32 * 16 // channels, 32 * 16 // channels)
            shortcut[:, : x.shape[1]] = x[:, :, ::stride, ::stride]
            inner = convolved(x, stride).clamp(min=0)
            x = (convolved(inner, 1) + shortcut).clamp(min=0)
    expected = x.mean((2, 3)) @ left.pop().T + left.pop()
    assert not left
    assert torch.allclose(model(inputs), expected, atol=1e-4)
