"""FedREDefense's inner loop in closed form: against finite differences, and against torch's own SGD."""

import pytest
import torch
from torch import nn

from fedguard.detectors._stack import closed_form
from fedguard.detectors._unroll import INNER_LOOPS, virtual_network
from fedguard.training.parameters import flat_parameters, load_parameters

STACKS = {
    "logistic": lambda: [nn.Flatten(), nn.Linear(36, 3)],
    "mlp without bias": lambda: [nn.Flatten(), nn.Linear(36, 4, bias=False), nn.ReLU(), nn.Linear(4, 3)],
    "relu, pool": lambda: [nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)],
    "pool, relu": lambda: [nn.Conv2d(1, 2, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)],
    "two convolutions": lambda: [
        nn.Conv2d(1, 4, 2, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 2, 2, groups=2, bias=False),
        nn.ReLU(),
        nn.Identity(),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(18, 3),
    ],
    "dilation, pool with padding": lambda: [
        nn.Conv2d(1, 2, 2, dilation=2),
        nn.ReLU(),
        nn.MaxPool2d(3, stride=2, padding=1),
        nn.Conv2d(2, 2, 2),
        nn.MaxPool2d(1, ceil_mode=True),
        nn.Flatten(),
        nn.Linear(2, 3),
    ],
    "pool first": lambda: [
        nn.MaxPool2d(2),
        nn.Conv2d(1, 2, 2, padding=(1, 0)),
        nn.Flatten(),
        nn.Linear(16, 3),
    ],
}


def knowledge(shape=(1, 6, 6)):
    draw = torch.Generator().manual_seed(5)
    images = torch.randn(3, *shape, generator=draw, dtype=torch.float64)
    logits = torch.randn(3, 3, generator=draw, dtype=torch.float64)
    return images.requires_grad_(), logits.requires_grad_(), torch.tensor(0.75).double().requires_grad_()


def network(layers):
    torch.manual_seed(2)
    return virtual_network(nn.Sequential(*layers()).double())


@pytest.mark.parametrize("average", ["classes", "batch"])
@pytest.mark.parametrize("name", list(STACKS))
def test_forwards_is_sgd_and_backwards_its_derivative(name, average):
    model = network(STACKS[name])
    assert closed_form(model, average) is not None
    start = flat_parameters(model)
    loop = INNER_LOOPS["closed"](model, start, 2, average)
    images, logits, lr = knowledge()
    end = loop(images, logits.softmax(1), lr)
    sgd = torch.optim.SGD(model.parameters(), lr=0.75)
    for _ in range(2):
        sgd.zero_grad()
        log_p = model(images.detach()).log_softmax(1)
        loss = -(logits.detach().softmax(1) * log_p).sum() / (9 if average == "classes" else 3)
        loss.backward()
        sgd.step()
    torch.testing.assert_close(end, flat_parameters(model), rtol=1e-10, atol=1e-12)
    load_parameters(model, start)
    along = torch.randn(len(start), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x, y, a: loop(x, y.softmax(1), a) @ along, (images, logits, lr))


class Twice(nn.Sequential):
    """Looks like a stack, computes something else."""

    def forward(self, images):
        return 2 * super().forward(images)


def tied():
    layer = nn.Linear(3, 3)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3), nn.ReLU(), layer, nn.ReLU(), layer)


OTHERS = {
    "own forward": lambda: Twice(nn.Flatten(), nn.Linear(36, 3)),
    "layer used twice": tied,
    "tanh": lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 5), nn.Tanh(), nn.Linear(5, 3)),
    "nested": lambda: nn.Sequential(nn.Sequential(nn.Flatten(), nn.Linear(36, 3))),
    "circular padding": lambda: nn.Sequential(
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"), nn.Flatten(), nn.Linear(36, 3)
    ),
    "padding by name": lambda: nn.Sequential(
        nn.Conv2d(1, 1, 3, padding="same"), nn.Flatten(), nn.Linear(36, 3)
    ),
    "linear on rows": lambda: nn.Sequential(nn.Linear(6, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3)),
}


@pytest.mark.parametrize("name", list(OTHERS))
def test_anything_else_goes_through_autograd(name):
    torch.manual_seed(2)
    model = virtual_network(OTHERS[name]().double())
    start, (images, logits, lr) = flat_parameters(model), knowledge()
    results = []
    for inner_loop in ("closed", "func"):
        end = INNER_LOOPS[inner_loop](model, start, 2, "classes")(images, logits.softmax(1), lr)
        results.append((end, *torch.autograd.grad(end.square().sum(), (images, logits, lr))))
    for ours, expected in zip(*results, strict=True):
        assert torch.equal(ours, expected)


def test_ties_are_broken_as_torch_does():
    """Equal inputs to a pool, and zeros into a ReLU: which one counts shows in the gradient."""
    model = network(
        lambda: [nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)]
    )
    start, (_, logits, lr) = flat_parameters(model), knowledge()
    images = torch.zeros(3, 1, 6, 6, dtype=torch.float64)
    images[1] = 1.0
    images[2, :, :, :3] = -1.0
    images.requires_grad_()
    results = []
    for inner_loop in ("closed", "func"):
        end = INNER_LOOPS[inner_loop](model, start, 2, "classes")(images, logits.softmax(1), lr)
        results.append((end, *torch.autograd.grad(end.square().sum(), (images, logits, lr))))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-10, atol=1e-12)
