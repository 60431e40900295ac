"""Every mistake of a model is named at the key ``model``, before anything trains."""

import sys
import types

import pytest
import torch
from torch import nn

from fedguard.core.errors import ConfigError, ParameterError
from fedguard.core.named_code import GIVEN
from fedguard.evaluation.suites.check import check_suite
from fedguard.evaluation.suites.load import load_suite
from fedguard.simulation.federation import Federation
from fedguard.simulation.models import build_model
from fedguard.simulation.models.check import check_fit
from fedguard.simulation.setup import setup_for

SUITE = """\
data: digits
model: 'own_models:NAME'
clients: 4
rounds: 1
training: {epochs: 1, batch_size: SIZE, lr: 0.1}
"""


class Given(nn.Module):
    """Logistic regression on the digits, with one function in its way."""

    def __init__(self, function=lambda x: x, inputs=64, outputs=10):
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x.flatten(1)))


class Frozen(Given):
    def __init__(self):
        super().__init__()
        self.requires_grad_(False)


class Locked(Given):
    """Holds what no copy can hold."""

    def __init__(self):
        super().__init__()
        self.lock = __import__("threading").Lock()


class Broken(Given):
    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.layer.bias[2] = float("nan")


class Auxiliary(Given):
    """Returns a pair in training mode, as some of torchvision's do."""

    def forward(self, x):
        return (super().forward(x),) * 2 if self.training else super().forward(x)


def normalized():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Linear(6, 10))


MODELS = {
    "inplace": lambda: nn.Sequential(nn.Threshold(0.5, 0.0, inplace=True), Given()),
    "fits": Given,
    "wide": lambda: Given(inputs=784),
    "few": lambda: Given(outputs=7),
    "single": lambda: Given(lambda x: x[:, 0]),
    "pair": lambda: Given(lambda x: {"logits": x}),
    "auxiliary": Auxiliary,
    "random": lambda: Given(lambda x: nn.functional.dropout(x, 0.5)),
    "detached": lambda: Given(lambda x: x.detach()),
    "numpy": lambda: Given(lambda x: torch.from_numpy(x.detach().numpy())),
    "frozen": Frozen,
    "locked": Locked,
    "broken": Broken,
    "double": lambda: Given().double(),
    "half": lambda: Given().half(),
    "normalized": normalized,
    "lazy": lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(10)),
}


@pytest.fixture(autouse=True)
def module(monkeypatch):
    made = types.ModuleType("own_models")
    made.__dict__.update(MODELS)
    monkeypatch.setitem(sys.modules, "own_models", made)


def check(folder, name, size=32):
    path = folder / "suite.yaml"
    path.write_text(SUITE.replace("NAME", name).replace("SIZE", str(size)))
    suite, source = load_suite(path)
    check_suite(suite, source)
    return suite.cells()[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("wide", r"samples of shape 1×8×8 raised RuntimeError: mat1 and mat2.*is told \(1, 8, 8\)"),
        ("few", r"logits of shape \(2, 7\) in evaluation mode, expected \(2, 10\): 2 samples, 10 classes"),
        ("single", r"logits of shape \(2,\)"),
        ("pair", r"returned a dict in evaluation mode; return one tensor of logits, of shape \(2, 10\)"),
        ("auxiliary", "returned a tuple in training mode"),
        ("random", "in evaluation mode give different logits"),
        ("detached", "no gradients: they do not depend on its parameters"),
        ("numpy", "no gradients"),
        ("frozen", "no parameter requires gradients"),
        ("locked", "cannot be copied"),
        ("inplace", "changes its inputs in evaluation mode, and with them the samples of all who come after"),
        ("broken", "gave NaN or Inf for a sample in evaluation mode"),
        ("double", "its parameter 'layer.weight' is of torch.float64; .*return model.float()"),
        ("half", "torch.float16"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_by_file_line_and_key(tmp_path, name, message):
    with pytest.raises(ConfigError, match=rf"(?s)suite\.yaml:2: model: model own_models:{name}.*{message}"):
        check(tmp_path, name)


def test_a_batch_of_one_sample_is_found_before_training(tmp_path):
    """1,437 training samples among four clients: one has 360, three have 359."""
    counts = [len(rows) for rows in setup_for(check(tmp_path, "normalized")).samples]
    assert sorted(counts) == [359, 359, 359, 360]
    who = counts.index(359)
    with pytest.raises(
        ConfigError, match=rf"batch of one sample.*client {who}, with 359 samples in batches of 358"
    ):
        check(tmp_path, "normalized", 358)
    check(tmp_path, "fits", 358)


@pytest.mark.parametrize("name", ["fits", "lazy"])
def test_a_model_that_fits_trains(tmp_path, name):
    federation = Federation(check(tmp_path, name))
    assert len(federation.params) == 650
    assert federation.step(0).tacc > 0.5


def test_checking_leaves_the_model_and_the_randomness_alone():
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 10))
    model[2].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes, state = [part.training for part in model.modules()], torch.random.get_rng_state()
    check_fit("mine", model, torch.ones(2, 1, 8, 8), 10)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [part.training for part in model.modules()] == modes
    assert all(p.grad is None for p in model.parameters())


def test_a_given_module_must_be_float32(monkeypatch):
    monkeypatch.setitem(GIVEN, "mine", nn.Linear(2, 2).double())
    with pytest.raises(ParameterError, match=r"torch\.float64"):
        build_model("given:mine", (2,), 2, torch.Generator())
