"""Loading into a model that may hold its parameters: as after loading all of them, whatever came between."""

import pytest
import torch
from torch import nn

from fedguard.training.held import hold
from fedguard.training.parameters import flat_parameters

START = torch.linspace(-1, 1, 4 * 3 + 3)


class Clamped(nn.Linear):
    """A module of one's own that changes its weights behind PyTorch's back."""

    def forward(self, inputs):
        self.weight.data.clamp_(-0.1, 0.1)
        return super().forward(inputs)


def in_place(model):
    with torch.no_grad():
        model[0].weight.add_(1)


def other_memory(model):
    model[0].weight.data = torch.zeros(3, 4)


def forward(model):
    model(torch.ones(1, 4))


@pytest.mark.parametrize("layer", [nn.Linear, Clamped])
@pytest.mark.parametrize("between", [in_place, other_memory, forward, lambda model: None])
def test_it_holds_the_vector(layer, between):
    model = nn.Sequential(layer(4, 3))
    for _ in range(3):
        hold(model, START)
        assert torch.equal(flat_parameters(model), START)
        between(model)


def test_what_is_held_is_not_written_again():
    model = nn.Sequential(nn.Linear(4, 3))
    hold(model, START)
    before = model[0].weight._version
    hold(model, START)
    assert model[0].weight._version == before
    other = START.clone()
    hold(model, other)
    assert model[0].weight._version > before


def test_a_vector_that_changed_is_loaded():
    model, start = nn.Sequential(nn.Linear(4, 3)), START.clone()
    hold(model, start)
    start.mul_(2)
    hold(model, start)
    assert torch.equal(flat_parameters(model), 2 * START)
