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


def shape_of(name):
    """A small input that a built-in model takes."""
    return {"bilstm": (80,), "lstm": (28,), "vgg11": (1, 32, 32), "alexnet": (1, 32, 32)}.get(name, IMAGE)


def residual(n):
    """Parameters of He et al. §4.2 by hand: 6n + 1 convolutions, two numbers per channel of each, the end."""
    inner = sum((2 * n - 1) * 9 * c * c + 2 * n * 2 * c for c in (16, 32, 64))
    return 27 * 16 + 32 + inner + 9 * (16 * 16 + 16 * 32 + 32 * 64) + 65 * 10


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
        ("resnet20", (3, 32, 32), {"norm": "batch"}, residual(3)),
        ("resnet56", (3, 32, 32), {}, residual(9)),
        ("resnet56", (3, 32, 32), {}, 853_018),
        ("resnet18", (3, 32, 32), {"norm": "group"}, 11_173_962),
        ("vgg11", (3, 32, 32), {}, 9_231_114),
        ("vgg11", (3, 32, 32), {"norm": "none"}, 9_225_610),
        ("alexnet", (3, 32, 32), {}, 2_472_266),
        ("fedavg_cnn", IMAGE, {}, 1_663_370),
        ("fedavg_cnn", IMAGE, {}, 25 * 32 + 32 + 25 * 32 * 64 + 64 + 49 * 64 * 512 + 512 + 512 * 10 + 10),
        ("lstm", (28,), {}, 4 * 64 * (1 + 64 + 2) + 64 * 10 + 10),
        ("lstm", (6, 5), {"hidden": 3, "layers": 2}, 4 * 3 * (5 + 3 + 2) + 4 * 3 * (3 + 3 + 2) + 3 * 10 + 10),
        ("bilstm", (80,), {}, 10 * 8 + 2 * 4 * 64 * (8 + 64 + 2) + 10 * 128 + 10),
        ("gan", (1, 8, 8), {"latent": 5, "hidden": [7]}, 6 * 7 + 8 * 64 + 65 * 7 + 8),
        ("bilstm", (5,), {"embedding": 3, "hidden": 2}, 10 * 3 + 2 * 4 * 2 * (3 + 2 + 2) + 10 * 4 + 10),
    ],
)
def test_number_of_parameters_and_output_shape(name, shape, params, expected):
    model = build(name, shape, **params)
    assert len(flat_parameters(model)) == expected
    assert model(torch.zeros(3, *shape)).shape == (3, 3 if name == "gan" else 10)


@pytest.mark.parametrize("name", CATALOGUE)
def test_initialized_like_torch_but_from_the_generator_only(name):
    """Oracle: torch's own constructors, fed by the global generator with the same seed."""
    shape = shape_of(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        expected = flat_parameters(models.get(name)(shape, *([] if name == "gan" else [10])))
        torch.manual_seed(8)
        before = torch.random.get_rng_state()
        found = flat_parameters(build(name, shape, seed=7))
        assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"
    assert torch.equal(found, expected)
    assert torch.equal(found, flat_parameters(build(name, shape, seed=7)))
    assert not torch.equal(found, flat_parameters(build(name, shape, seed=9)))


@pytest.mark.parametrize("name", [name for name in CATALOGUE if "lstm" not in name and name != "gan"])
def test_models_can_be_pickled_and_vectorized(name):
    shape = shape_of(name)
    model = build(name, shape).eval()
    inputs = torch.rand(2, 5, *shape, generator=torch.Generator().manual_seed(1))
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


@pytest.mark.parametrize(("name", "least"), [("vgg11", 32), ("alexnet", 29), ("fedavg_cnn", 4)])
def test_images_that_newer_models_cannot_take_are_refused(name, least):
    assert build(name, (2, least, least)).eval()(torch.zeros(1, 2, least, least)).shape == (1, 10)
    for shape in ((3, least - 1, 40), (3, 40, least - 1)):
        with pytest.raises(ParameterError, match=f"{name}.*too small, the smallest is {least}×{least}"):
            build(name, shape)


def test_the_convolutions_are_those_of_torchvision():
    """Oracle: torchvision's own networks; only stride, padding and the end differ."""
    from fedguard.simulation.vision import torchvision

    def convolutions(model):
        return [tuple(p.shape) for p in model.parameters() if p.ndim == 4]

    for name, params, theirs in (
        ("alexnet", {}, torchvision.models.alexnet),
        ("vgg11", {"norm": "none"}, torchvision.models.vgg11),
        ("vgg11", {}, torchvision.models.vgg11_bn),
    ):
        with torch.device("meta"):
            found, expected = models.get(name)((3, 32, 32), 10, **params), theirs()
        assert convolutions(found) == convolutions(expected)
        assert sum(p.numel() for p in list(found.parameters())[:-2]) == sum(
            p.numel() for p in expected.features.parameters()
        )


def test_resnet18_is_torchvisions_except_for_its_first_layers():
    """Oracle: torchvision's residual stages with the same weights, on the same input."""
    from fedguard.simulation.vision import torchvision

    mine = nn.Sequential(*build("resnet18", (3, 32, 32))).eval()
    theirs = torchvision.models.resnet18(num_classes=10).eval()
    stages = nn.Sequential(
        theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4, theirs.avgpool, nn.Flatten(), theirs.fc
    )
    with torch.no_grad():
        for own, other in zip(mine[3:].parameters(), stages.parameters(), strict=True):
            other.copy_(own + 0.01)
            own.copy_(other)
    inputs = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(mine(inputs), stages(mine[:3](inputs)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", [(5,), (5, 3)])
def test_lstm_reads_a_series_step_by_step(shape):
    """Oracle: the equations with forget gates, in float64, step by step."""
    model = build("lstm", shape, 4, hidden=3).double()
    series = torch.randn(2, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = dict(model.lstm.named_parameters())
    state = cell = torch.zeros(2, 3, dtype=torch.float64)
    for step in series.reshape(2, 5, -1).unbind(1):
        gates = step @ weights["weight_ih_l0"].T + weights["bias_ih_l0"]
        enter, forget, new, leave = (gates + state @ weights["weight_hh_l0"].T + weights["bias_hh_l0"]).chunk(
            4, 1
        )
        cell = forget.sigmoid() * cell + enter.sigmoid() * new.tanh()
        state = leave.sigmoid() * cell.tanh()
    assert torch.allclose(model(series), model.output(state), atol=1e-12)


@pytest.mark.parametrize(
    "name", [*CNNS, "resnet18", "resnet20", "resnet56", "vgg11", "alexnet", "fedavg_cnn"]
)
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
        ("lstm", {"layers": 0}, "layers is 0"),
        ("lstm", {"dropout": 0.5}, "set layers to at least 2"),
        ("lstm", {"layers": 2, "dropout": 1.0}, "dropout is 1.0"),
        ("vgg11", {"norm": "layer"}, "norm"),
    ],
)
def test_unknown_names_and_parameters(name, params, message):
    with pytest.raises(ParameterError, match=message):
        build(name, (28,) if name == "lstm" else IMAGE, **params)


def test_lstm_takes_series_only():
    with pytest.raises(ParameterError, match=r"series \(steps, features\) or \(steps,\)"):
        build("lstm", IMAGE)


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
