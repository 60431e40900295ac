"""Searching for several clients at once: the steps against torch.optim, and the same bits in any company."""

import pytest
import torch
from torch import nn

from fedguard import Round, Server, make_detector
from fedguard.detectors._descent_steps import Steps
from fedguard.training.parameters import flat_parameters


@pytest.mark.parametrize("kind", ["sgd", "adam"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_steps_have_the_bits_of_torch_optim_and_rows_leave_without_a_trace(kind, momentum):
    draw = torch.Generator().manual_seed(0)
    start = [torch.randn(4, 3, 5, generator=draw), torch.randn(4, generator=draw)]
    rates = (0.1, 0.02)
    theirs = [part.clone().requires_grad_() for part in start]
    groups = [{"params": [p], "lr": rate} for p, rate in zip(theirs, rates, strict=True)]
    optimizer = (
        torch.optim.Adam(groups) if kind == "adam" else torch.optim.SGD(groups, lr=1, momentum=momentum)
    )
    ours = [part.clone().requires_grad_() for part in start]
    steps = Steps(kind, ours, rates, momentum)
    rows = [0, 1, 2, 3]
    for index in range(6):
        gradients = [torch.randn(part.shape, generator=draw) for part in start]
        for p, gradient in zip(theirs, gradients, strict=True):
            p.grad = gradient
        optimizer.step()
        steps.step([gradient[rows] for gradient in gradients])
        if index == 2:
            rows = [3, 1]
            steps.keep([3, 1])
    for p, q in zip(theirs, ours, strict=True):
        assert q.tolist() == p[rows].tolist()


def network(bias=True):
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 7, bias=bias), nn.ReLU(), nn.Linear(7, 3))


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"momentum": 0.5, "schedule": "continuous"},
        {"preset": "fast", "first_iterations": 12},
        {"optimizer": "adam", "inner_rate": "matched", "inner_steps": 2},
        {"give_up_after": 3, "loss_average": "batch"},
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_search_has_the_same_bits_in_any_company(params, bias):
    model = network(bias)
    start = flat_parameters(model)
    draw = torch.Generator().manual_seed(1)
    inputs, labels = torch.randn(40, 8, 1, 4, 4, generator=draw), torch.randint(3, (40, 8), generator=draw)
    updates = torch.stack([-0.5 * gradient(model, *part) for part in zip(inputs, labels, strict=True)])
    updates[5] = torch.randn(updates.shape[1], generator=draw)  # nobody's training
    updates[6] = 0
    updates[7] *= 1e30  # the error overflows
    round_ = Round(
        updates, global_params=start, server=Server(model=model, input_shape=(1, 4, 4), num_classes=3)
    )
    method = make_detector(
        "fedredefense", **{"inner_lr": 1.0, "first_iterations": 10, "num_images": 4} | params
    )
    whole = method(round_)
    for some in ([0], [6, 5], [7, 3, 39], list(range(20, 40))):
        scores = method(round_.take(some))
        assert scores.values.tolist() == whole.values[some].tolist()
        for client, memory in scores.memory.items():
            for part, other in zip(memory.knowledge, whole.memory[client].knowledge, strict=True):
                assert part.tolist() == other.tolist()
    assert len({round(v, 6) for v in whole.values.tolist()}) > 30


def gradient(model, inputs, labels):
    loss = nn.functional.cross_entropy(model(inputs), labels)
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])
