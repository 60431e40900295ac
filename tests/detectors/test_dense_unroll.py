"""FedREDefense's inner loop with reused memory, against the general stack and autograd."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from fedguard.detectors._dense_unroll import DenseLoop, is_dense
from fedguard.detectors._stack import closed_form, unroll
from fedguard.detectors._unroll import functional_loop, unrolled
from fedguard.training.parameters import flat_parameters, split_parameters


def dense(*widths, bias=True):
    torch.manual_seed(0)
    layers = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs, bias=bias), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def knowledge(clients, network, seed):
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(clients, 5, 1, 4, 4, generator=draw)
    targets = torch.randn(clients, 5, network[-1].out_features, generator=draw).softmax(-1)
    return images, targets, 3 * torch.rand(clients, generator=draw)


def by_autograd(loop, parts, along):
    leaves = [part.clone().requires_grad_() for part in parts]
    end = loop(*leaves)
    return [end.detach(), *torch.autograd.grad(end, leaves, along)]


@pytest.mark.parametrize("widths", [(16, 3), (16, 7, 3), (16, 9, 6, 4)])
@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("average", ["classes", "batch"])
def test_it_has_the_bits_of_the_general_stack_and_agrees_with_autograd(widths, steps, average):
    network = dense(*widths)
    start = flat_parameters(network)
    first = list(split_parameters(network, start).values())
    stack = closed_form(network, average).of_vectors()
    loop = DenseLoop(stack, first, steps)
    for clients in (4, 4, 1, 3):  # the memory of earlier calls leaves no trace
        parts = knowledge(clients, network, seed=clients)
        along = torch.randn(clients, len(start), generator=torch.Generator().manual_seed(9))
        ours = [loop.ends(*parts).clone(), *loop.pull(along)]
        general = by_autograd(lambda x, *more: unroll(stack, first, steps, x.flatten(2), *more), parts, along)
        assert [part.tolist() for part in ours] == [part.tolist() for part in general]
        double = [part.double() for part in parts]
        exact = functional_loop(network.double(), start.double(), steps, average)
        truth = by_autograd(exact, double, along.double())
        network.float()
        for one, other in zip(ours, truth, strict=True):
            torch.testing.assert_close(one.double(), other, rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Linear(16, 4), nn.ReLU()],
        [nn.ReLU(), nn.Linear(16, 4)],
        [nn.Linear(16, 7), nn.Linear(7, 4)],
        [nn.Linear(16, 7), nn.ReLU(), nn.ReLU(), nn.Linear(7, 4)],
        [nn.Linear(16, 7, bias=False), nn.ReLU(), nn.Linear(7, 4)],
        [nn.Linear(16, 7), nn.ReLU(), nn.Linear(7, 4, bias=False)],
    ],
)
def test_other_stacks_are_left_to_autograd(layers):
    network = nn.Sequential(nn.Flatten(), *layers)
    assert not is_dense(closed_form(network, "classes").of_vectors())
    start = flat_parameters(network)
    loop = unrolled("closed", network, start, 2, "classes", torch.zeros(5, 1, 4, 4))
    assert not isinstance(loop, DenseLoop)
    draw = torch.Generator().manual_seed(0)
    parts = torch.randn(2, 5, 1, 4, 4, generator=draw), torch.full((2, 5, 4), 0.25)
    parts = (*parts, torch.ones(2))
    along = torch.randn(2, len(start), generator=draw)
    expected = by_autograd(functional_loop(network, start, 2, "classes"), parts, along)
    for one, other in zip([loop.ends(*parts), *loop.pull(along)], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_gradient_without_an_end_is_refused():
    network = dense(16, 3)
    stack = closed_form(network, "classes").of_vectors()
    with pytest.raises(RuntimeError, match="without ends"):
        DenseLoop(stack, list(network.parameters()), 1).pull(torch.zeros(1, 51))
