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
    velocity = [torch.zeros_like(p) for p in moved]
    for batch in batches:
        gradients = torch.autograd.grad(loss(batch), moved, allow_unused=True, materialize_grads=True)
        with torch.no_grad():
            for p, v, g in zip(moved, velocity, gradients, strict=True):
                p.sub_(v.mul_(momentum).add_(g).add_(p, alpha=weight_decay), alpha=lr)


def shuffled(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Positions 0 … count − 1 in batches, in random order."""
    yield from torch.split(torch.randperm(count, generator=generator), size)


def device_of(model: nn.Module) -> torch.device:
    """Where a model's parameters are."""
    return next(model.parameters()).device
