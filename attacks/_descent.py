"""Steps of SGD that attacks take on their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn


def descend(
    parameters: Iterable[nn.Parameter],
    batches: Iterable[Tensor],
    loss: Callable[[Tensor], Tensor],
    lr: float,
    momentum: float,
    weight_decay: float,
) -> None:
    """v ← μ v + ∇ℓ + λ w,  w ← w − η v  with ℓ = loss(batch), for each batch, in place."""
    moved = list(parameters)
    optimizer = torch.optim.SGD(moved, lr=lr, momentum=momentum, weight_decay=weight_decay)
    for batch in batches:
        gradients = torch.autograd.grad(loss(batch), moved, allow_unused=True, materialize_grads=True)
        for parameter, gradient in zip(moved, gradients, strict=True):  # no other parameter gets a gradient
            parameter.grad = gradient
        optimizer.step()
    optimizer.zero_grad()


def shuffled(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Positions 0 … count − 1 in batches, in random order."""
    yield from torch.split(torch.randperm(count, generator=generator), size)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device
