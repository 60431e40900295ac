"""3DFed's indicators: weights that nobody else moves, read in the next global model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from fedguard.core.errors import ParameterError
from fedguard.training.parameters import learned

#: What became of one colluder's update.
Verdict = Literal["accepted", "clipped", "rejected"]
#: Feedback of up to this share of the largest one is that of a clipped update.
CLIPPED = 0.8
#: Sent where the update is 0.
LEAST = 0.01


def output_layer(model: nn.Module, num_classes: int) -> nn.Linear:
    """The last linear layer, which holds the masks.

    Raises:
        ParameterError: there is none, it is frozen, or it has not one output per label.
    """
    layers = [part for part in model.modules() if isinstance(part, nn.Linear)]
    if not layers or layers[-1].out_features != num_classes or not _learns(model, layers[-1]):
        raise ParameterError(
            "three_dfed: the model does not end in a linear layer that learns, with one output per label"
        )
    return layers[-1]


def indicator_weight(model: nn.Module, output: nn.Linear) -> Tensor:
    """The weight of the last convolution that learns; without one, of the last hidden linear layer.

    Raises:
        ParameterError: there is neither.
    """
    for kinds in ((nn.Conv1d, nn.Conv2d, nn.Conv3d), (nn.Linear,)):
        layers = [
            p for p in model.modules() if isinstance(p, kinds) and p is not output and _learns(model, p)
        ]
        if layers:
            return layers[-1].weight
    raise ParameterError(
        "three_dfed: the model has neither a convolution nor a hidden linear layer that learns; the "
        "indicators need one"
    )


def _learns(model: nn.Module, layer: nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear) -> bool:
    return any(p is layer.weight for p in learned(model).values())


def coordinates(model: nn.Module, parameter: Tensor) -> Tensor:
    """Where a learned parameter lies in the flat vector, in the parameter's shape."""
    start = 0
    for other in learned(model).values():
        if other is parameter:
            return torch.arange(start, start + parameter.numel()).view(parameter.shape)
        start += other.numel()
    raise ValueError("the model does not learn this parameter")


def output_rows(model: nn.Module, output: nn.Linear) -> Tensor:
    """(labels, inputs + 1) where each output's weights and bias lie in the flat vector."""
    rows = coordinates(model, output.weight)
    bias = output.bias
    if bias is None or not any(bias is p for p in learned(model).values()):
        return rows
    return torch.cat([rows, coordinates(model, bias)[:, None]], 1)


def curvature(weight: Tensor, losses: Iterable[Tensor]) -> Tensor:
    """|Σ_j ∂²ℓ/∂w_i ∂w_j| for each weight i of a layer, ℓ the sum of the losses."""
    total = torch.zeros_like(weight)
    for loss in losses:
        (gradient,) = torch.autograd.grad(loss, weight, create_graph=True)
        (second,) = torch.autograd.grad(gradient.sum(), weight, allow_unused=True, materialize_grads=True)
        total += second
    return total.detach().abs()


def quietest(moved: Tensor, curved: Tensor, count: int, candidates: int) -> Tensor:
    """(count,) of the ``candidates · count`` weights that move least, those of least curvature.

    Args:
        moved: (w,) how far training moves each weight.
        curved: (w,) its curvature.
        count: how many to find; fewer if there are fewer weights.
        candidates: per place.
    """
    few = moved.sort(stable=True).indices[: candidates * count]
    return few[curved[few].sort(stable=True).indices][:count]


def implanted(update: Tensor, factor: float) -> Tensor:
    """The value that a colluder sends in place of a weight's update: ``factor`` times it, but never 0."""
    return torch.where(update == 0, torch.full_like(update, LEAST), factor * update)


def read(feedback: Tensor, threshold: float) -> list[Verdict] | None:
    """What became of each update; None if the server adds noise.

    Args:
        feedback: per colluder, how far the global model moved in the indicator's place, divided by what the
            colluder sent there.
        threshold: feedback of a rejected update is at most this. Noise makes it less than −threshold, or
            more than 1.
    """
    if bool(((feedback > 1) | (feedback < -threshold)).any()):
        return None
    most = float(feedback.max()) if len(feedback) else 0.0
    return [
        "rejected" if value <= threshold else "clipped" if value <= CLIPPED * most else "accepted"
        for value in feedback.tolist()
    ]
