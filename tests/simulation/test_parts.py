"""Models, data sets and partitions of one's own: by module:name, and as objects given from Python."""

import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from fedguard.contracts.data import Samples
from fedguard.core.errors import ParameterError
from fedguard.core.named_code import GIVEN, is_code
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.datasets import Dataset, datasets, load_dataset
from fedguard.simulation.federation import Federation
from fedguard.simulation.models import build_model, models
from fedguard.simulation.partitions import make_partition, partitions
from fedguard.training.parameters import flat_parameters


class Net(nn.Module):
    """A network without any of FedGuard's parameters, written for the data below."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, width), nn.Tanh(), nn.Linear(width, 2))

    def forward(self, x):
        return self.layers(x)


def plane(count: int = 40) -> Dataset:
    """Points of the plane; the class is the sign of the first coordinate."""
    points = torch.from_numpy(np.random.default_rng(0).normal(size=(count, 2))).float()
    samples = Samples(points, (points[:, 0] > 0).long())
    return Dataset("plane", samples, samples, 2, mean=(0.0,), std=(1.0,))


def in_turn(labels, n):
    """Sample i goes to client i mod n."""
    return [np.arange(k, len(labels), n) for k in range(n)]


@pytest.fixture(autouse=True)
def module(monkeypatch):
    made = types.ModuleType("own_parts")
    made.__dict__.update(Net=Net, plane=plane, in_turn=in_turn, other=lambda: 3)
    monkeypatch.setitem(sys.modules, "own_parts", made)


def build(name, **params):
    return build_model(name, (2,), 2, torch.Generator().manual_seed(5), **params)


def test_a_class_is_built_from_the_generator_alone():
    before = torch.random.get_rng_state()
    model = build("own_parts:Net", width=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.layers[0].out_features == 4
    assert torch.equal(flat_parameters(model), flat_parameters(build("own_parts:Net", width=4)))


def test_a_given_module_keeps_its_weights(monkeypatch):
    mine = Net()
    monkeypatch.setitem(GIVEN, "mine", mine)
    model = build("given:mine")
    assert model is not mine
    assert torch.equal(flat_parameters(model), flat_parameters(mine))
    with pytest.raises(ParameterError, match="takes no parameters"):
        build("given:mine", width=2)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: build("own_parts:Nte"), "cannot load model 'own_parts:Nte'"),
        (lambda: build("own_parts:Net", widht=2), "did you mean 'width'"),
        (lambda: build("given:nothing"), "no such object was given"),
        (lambda: build("own_parts:other"), "made a int, not a torch.nn.Module"),
        (lambda: build("mpl"), "did you mean 'mlp'"),
        (lambda: load_dataset("own_parts:plane", count="many"), "parameter 'count'"),
        (lambda: load_dataset("own_parts:other"), "is a int, not a Dataset"),
        (lambda: make_partition("own_parts:nothing", [0, 1], 2, None), "cannot load partition"),
    ],
)
def test_mistakes_are_named(action, message):
    with pytest.raises(ParameterError, match=message):
        action()


@pytest.mark.parametrize("parts", [models, datasets, partitions])
def test_everything_that_comes_with_fedguard_has_a_summary(parts):
    assert parts.names()
    assert all(parts.summary(name) for name in parts.names())


def test_a_suite_of_ones_own_parts_runs(tmp_path):
    suite = tmp_path / "own.yaml"
    suite.write_text(
        "data: {name: 'own_parts:plane', count: 60}\nmodel: {name: 'own_parts:Net', width: 5}\n"
        "partition: own_parts:in_turn\nclients: 4\nmalicious: 1\nrounds: 3\nattacks: [byzantine]\n"
        "training: {lr: 0.5}\n"
    )
    plan, source = load_suite(suite)
    check_suite(plan, source)
    federation = Federation(plan.cells()[0])
    assert federation.setup.samples[1].tolist() == list(range(1, 60, 4))
    assert len(federation.params) == 2 * 5 + 5 + 5 * 2 + 2
    assert federation.step(0).tacc >= 0


@pytest.mark.parametrize("name", ["own_parts:Net", "os:system", "torch.nn:Linear"])
def test_names_of_code_are_recognized(name):
    assert is_code(name)


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "openml:61", "huggingface:mnist", "given:Net", "mlp"]
)
def test_names_of_libraries_and_given_objects_are_no_code(name):
    assert not is_code(name)
