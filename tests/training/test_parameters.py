"""Models as flat vectors."""

import numpy as np
import pytest
import torch
from torch import nn

from fedguard import LabeledData
from fedguard.core.errors import RoundError
from fedguard.training.parameters import error_and_loss, flat_parameters, load_parameters, split_parameters


class Tied(nn.Module):
    """Two names for one weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x))


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))


MODELS = [network, Tied, lambda: nn.Sequential(nn.Conv1d(1, 2, 2), nn.Flatten(), nn.Linear(4, 3))]


def data(model, count=7):
    generator = torch.Generator().manual_seed(1)
    shape = (count, 1, 3) if isinstance(next(iter(model.children())), nn.Conv1d) else (count, 3)
    inputs = torch.randn(shape, generator=generator)
    return LabeledData(inputs, torch.randint(3, (count,), generator=generator))


@pytest.mark.parametrize("make", MODELS)
def test_flat_split_and_load_are_inverse(make):
    model, other = make(), make()
    vector = flat_parameters(model)
    assert vector.shape == (sum(p.numel() for p in model.parameters()),)
    assert not vector.requires_grad
    for name, part in split_parameters(model, vector).items():
        assert torch.equal(part, model.get_parameter(name))
        assert part.untyped_storage().data_ptr() == vector.untyped_storage().data_ptr()
    load_parameters(other, vector)
    assert torch.equal(flat_parameters(other), vector)
    vector.zero_()
    assert flat_parameters(model).abs().sum() > 0, "flat_parameters copies"


@pytest.mark.parametrize("make", MODELS)
def test_the_vector_counts_and_not_the_models_own_parameters(make):
    model, other = make().eval(), make().eval()
    sample = data(model)
    logits = other(sample.inputs)
    loss = nn.functional.cross_entropy(logits, sample.labels).item()
    error = float((logits.argmax(1) != sample.labels).float().mean())
    found = error_and_loss(model, flat_parameters(other), sample)
    assert found == pytest.approx((error, loss), rel=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 7, 100])
def test_the_batch_size_does_not_show(batch):
    model = network()
    sample = data(model)
    vector = flat_parameters(model)
    assert error_and_loss(model, vector, sample, batch) == pytest.approx(
        error_and_loss(model, vector, sample)
    )


def test_measuring_leaves_the_model_as_it_was():
    model = network().train()
    model[1].eval()  # a frozen batch norm
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    sample = data(model)
    error_and_loss(model, torch.zeros_like(flat_parameters(model)), sample)
    with pytest.raises(RuntimeError):
        error_and_loss(model, flat_parameters(model), LabeledData(sample.inputs[:, :2], sample.labels))
    assert [part.training for part in model.modules()] == [True, True, False, True, True]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_measured_in_eval_mode():
    model = network().train()
    sample = data(model, 64)
    vector = flat_parameters(model)
    assert error_and_loss(model, vector, sample) == error_and_loss(model, vector, sample), "dropout is off"


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_vector_of_the_wrong_length_is_refused(size):
    model = network()
    for call in (split_parameters, load_parameters):
        with pytest.raises(RoundError, match="for a model of 39 parameters"):
            call(model, torch.zeros(size))
    with pytest.raises(RoundError, match="39 parameters"):
        error_and_loss(model, torch.zeros(size), data(model))


def test_loading_copies_and_keeps_gradients_possible():
    model = nn.Linear(2, 2)
    vector = torch.tensor(np.arange(6, dtype=np.float64))
    load_parameters(model, vector)
    vector.zero_()
    assert model.bias.tolist() == [4, 5]
    assert all(p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_no_samples_measure_nothing():
    model = network()
    assert np.isnan(error_and_loss(model, flat_parameters(model), data(model, 0))).all()
