"""Training and evaluation of every built-in model on fake tensors of another device.

Fake tensors have shapes and devices but no numbers. Every operation that mixes devices raises, and so does
one that reads a number back, which would make a GPU wait.
"""

import dataclasses

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fedguard.contracts.data import LabeledData, Share
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError
from fedguard.simulation.models import CATALOGUE, build_model
from fedguard.testing.pretended_device import can_pretend, registered_device
from fedguard.training.local import trained
from fedguard.training.parameters import flat_parameters, predict

pytestmark = pytest.mark.skipif(not can_pretend(), reason="this torch cannot register a device in Python")
if can_pretend():
    registered_device()  # before any test of this process calls autograd, which counts devices once

SHAPES = ((3, 32, 32), (1, 28, 28), (12,), (64,))
#: BatchNorm counts batches in a tensor that cannot be fake.
PARAMS = {"resnet18": {"norm": "group"}, "vgg11": {"norm": "none"}}
TRAININGS = {
    "momentum and weight decay": LocalTraining(batch_size=3, momentum=0.9, weight_decay=0.1),
    "FedProx and FL-WBC": LocalTraining(epochs=None, steps=2, batch_size=3, proximal=0.1, wbc=0.1),
}


def moved(model, device):
    """``model.to(device)``, which cannot replace fake parameters."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = nn.Parameter(parameter.detach().to(device))
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    return model


def build(name, shape):
    try:
        return build_model(name, shape, 10, torch.Generator(), **PARAMS.get(name, {}))
    except ParameterError:
        return None


@pytest.fixture
def there():
    return registered_device()


#: Deep or long; resnet20 and lstm are made of the same parts.
LONG = {"bilstm", "resnet18", "resnet56"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in sorted(CATALOGUE)]
)
def test_a_model_trains_and_predicts_there(name, there):
    shapes = [shape for shape in SHAPES if build(name, shape) is not None]
    assert shapes, "no shape fits this model; add one"
    with FakeTensorMode():
        model = moved(build(name, shapes[0]), there)
        data = LabeledData(torch.rand(5, *shapes[0]), torch.randint(0, 10, (5,)))
        start = flat_parameters(model)
        clients = [data, Share(data, torch.arange(4))]
        loss, outputs = ("gan", 3) if name == "gan" else ("cross_entropy", 10)
        trainings = [dataclasses.replace(training, loss=loss) for training in TRAININGS.values()]
        for training in trainings:
            found = trained(model, start, clients, training, [torch.Generator(), torch.Generator()])
            assert {one.update.device for one in found} == {there}
            assert {one.update.shape for one in found} == {start.shape}
        adjusted = trained(model, start, [data], trainings[0], [torch.Generator()], lambda g: g)
        assert adjusted[0].update.device == there
        logits = predict(model, start.cpu(), data.inputs)
        assert (logits.device, logits.shape) == (there, (5, outputs))


def test_the_test_sees_mixes_and_numbers_read_back(there):
    with FakeTensorMode():
        moved_to, stayed = torch.rand(3).to(there), torch.rand(3)
        with pytest.raises(RuntimeError, match="same device"):
            moved_to + stayed
        with pytest.raises(DataDependentOutputException):
            moved_to.sum().item()
