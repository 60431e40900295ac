"""The model contract: built-in models pass it, and each kind of broken model fails the right check."""

import pytest
import torch
from torch import nn

from fedguard.core.errors import ParameterError
from fedguard.simulation.models import CATALOGUE
from fedguard.testing.models import CHECKS, check_model, checks

#: Small images where the model allows them, for speed.
SHAPES = {"resnet18": (3, 8, 8), "resnet20": (3, 8, 8), "resnet56": (3, 8, 8), "lstm": (6, 2), "bilstm": (9,)}


#: Deep; resnet20 is made of the same parts.
LONG = {"resnet56"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in CATALOGUE]
)
def test_built_in_models_pass(name):
    report = check_model(name, input_shape=SHAPES.get(name))
    report.raise_for_failures()
    assert [result.check for result in report.results] == list(CHECKS)


def test_a_model_for_one_shape_is_checked_with_it():
    model = nn.Linear(7, 3)
    assert not check_model(model).ok
    check_model(model, {"input_shape": [7], "num_classes": 3}).raise_for_failures()
    with pytest.raises(ParameterError, match=r"input_shape\.0.*greater than 0"):
        check_model(model, {"input_shape": [0]})
    with pytest.raises(ParameterError, match=r"num_classes.*greater than 1"):
        check_model(model, num_classes=1)


def test_models_of_libraries_pass():
    check_model("torchvision:squeezenet1_1", {"dropout": 0.1}).raise_for_failures()


class Net(nn.Module):
    """Logistic regression on flattened inputs, with a hook for mistakes."""

    def __init__(self, input_shape, num_classes):
        super().__init__()
        self.layer = nn.Linear(torch.Size(input_shape).numel(), num_classes)
        self.register_buffer("calls", torch.zeros(()))
        self.prepare()

    def prepare(self):
        pass

    def forward(self, x):
        return self.layer(x.flatten(1))


class Seeds(Net):
    def prepare(self):
        torch.manual_seed(0)
        self.layer.reset_parameters()


class Random(Net):
    def forward(self, x):
        return super().forward(x) + torch.rand(1)


class Counts(Net):
    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class Learns(Net):
    """Trains by itself."""

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.layer.bias += 1
        return super().forward(x)


class Deaf(Net):
    def train(self, mode=True):
        return super().train(True)


class Hides(Net):
    def prepare(self):
        self.more = [nn.Linear(3, 3)]


class Caches(Net):
    """Goes on with the parameter that it was built with, even if another takes its place."""

    def prepare(self):
        self.kept = [self.layer.weight]

    def forward(self, x):
        return x.flatten(1) @ self.kept[0].T + self.layer.bias


class Forgets(Net):
    """A running statistic that no state has."""

    def prepare(self):
        self.scale = 1.0

    def forward(self, x):
        if self.training:
            self.scale = 2.0
        return super().forward(x) * self.scale


class Shares(Net):
    def __deepcopy__(self, memo):
        return self


class Local(Net):
    """Cannot be pickled."""

    def prepare(self):
        self.function = lambda x: x


class Threads(Net):
    def prepare(self):
        torch.set_num_threads(2)


class Flat(Net):
    def forward(self, x):
        return super().forward(x)[:, 0]


@pytest.mark.parametrize(
    ("net", "check", "message"),
    [
        (Seeds, "the same generator", "every generator gives the same model"),
        (Random, "evaluation repeats itself", "two passes give other logits"),
        (Random, "no global state", "it drew from torch's global generator"),
        (Counts, "no training without .train()", "a pass in evaluation mode changes its state"),
        (Learns, "no training without .train()", "a pass in training mode moves its parameters"),
        (Deaf, "no training without .train()", ".eval() leaves training mode on"),
        (Hides, "parameters are found", "does not find what is in more"),
        (Caches, "other parameters", "gives other logits than a model of these"),
        (Forgets, "state_dict round trip", "after load_state_dict it gives other logits"),
        (Shares, "copies", "copy.deepcopy shares memory"),
        (Local, "copies", "pickle"),
        (Threads, "no global state", "building it changes the number of threads"),
        (Flat, "logits of every sample", r"logits of shape (2,)"),
    ],
)
def test_what_is_broken_is_named(net, check, message):
    report = check_model(net, input_shape=(1, 4, 4), num_classes=3)
    failed = {result.check: result for result in report.failures}
    assert message in failed[check].message
    assert failed[check].advice
    assert report.method == net.__name__


def test_a_sound_model_passes_as_class_function_module_and_with_parameters():
    check_model(Net, input_shape=(5,), num_classes=2).raise_for_failures()
    check_model(lambda input_shape: Net(input_shape, 10)).raise_for_failures()
    check_model(Net((2, 2), 4), input_shape=(2, 2), num_classes=4).raise_for_failures()
    assert not check_model(Net).failures, "images are tried first"
    with pytest.raises(ParameterError, match="unknown model"):
        check_model("resnett")
    report = check_model("mlp", {"hiden": [3]})
    assert "did you mean 'hidden'" in report.failures[0].message


@pytest.mark.parametrize("check", checks("logistic_regression"), ids=lambda check: check.name)
def test_the_checks_one_by_one(check):
    check()


def test_exempt_checks_are_not_run():
    class Exempt(Random):
        exempt = {"evaluation repeats itself": "it is a Bayesian network"}  # noqa: RUF012

    report = check_model(Exempt, input_shape=(4,))
    assert [r.message for r in report.results if r.status == "exempt"] == ["it is a Bayesian network"]
