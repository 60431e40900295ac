"""A lower bound on FedREDefense's reconstruction error that needs no reconstruction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedguard.training.parameters import split_parameters

from ._stack import closed_form
from ._stack_layers import Dense


@torch.no_grad()
def least_error(network: nn.Module, update: Tensor, num_images: int, inner_steps: int) -> float:
    """A lower bound on the error of reproducing the update by N steps on K images.

    The gradient of a fully connected layer on K samples is a sum of K outer products, so N steps change its
    weights by a matrix of rank at most K·N. The rest of the update is left over:
    Σ_layers Σ_{j>KN} σ_j² / ‖g‖² (Eckart & Young). Returns 0 for a network that is not a plain stack of
    layers, since a layer might be used more than once per sample.

    Args:
        network: from ``virtual_network``.
        update: (d,) g, not zero.
        num_images: K.
        inner_steps: N.
    """
    stack = closed_form(network, "classes")
    if stack is None:
        return 0.0
    parts = list(split_parameters(network, update.double()).values())
    beyond = 0.0
    for layer, own in zip(stack.layers, stack.split(parts), strict=True):
        if isinstance(layer, Dense):
            weight = own[0] if own[0].shape[0] <= own[0].shape[1] else own[0].t()
            squares = torch.linalg.eigvalsh(weight @ weight.t()).clamp(min=0)  # σ², ascending
            beyond += float(squares[: max(0, len(squares) - num_images * inner_steps)].sum())
    return beyond / float(update.double().square().sum())
