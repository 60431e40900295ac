"""Models as flat parameter vectors, the form that updates and detectors use.

Only parameters are scored. Statistics (floating-point buffers, as BatchNorm has them) travel beside them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..contracts.data import LabeledData
from ..core.errors import RoundError


def flat_parameters(model: nn.Module) -> Tensor:
    """(d,) a copy of the parameters, without gradient, in the order of ``model.parameters()``."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def device_of(model: nn.Module, other: Tensor) -> torch.device:
    """The device of a model's first parameter; that of another tensor if it has none."""
    return next((p.device for p in model.parameters()), other.device)


def split_parameters(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Split a (d,) vector into tensors by parameter name, as views.

    Raises:
        RoundError: the model does not have d parameters.
    """
    named = dict(model.named_parameters())
    sizes = [p.numel() for p in named.values()]
    if vector.shape != (sum(sizes),):
        raise RoundError(f"a vector of shape {tuple(vector.shape)} for a model of {sum(sizes)} parameters")
    parts = torch.split(vector, sizes)
    return {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}


def load_parameters(model: nn.Module, vector: Tensor) -> None:
    """Copy a (d,) vector into the model's parameters, in place."""
    with torch.no_grad():
        for parameter, part in zip(model.parameters(), split_parameters(model, vector).values(), strict=True):
            parameter.copy_(part)


def flat_statistics(model: nn.Module) -> Tensor:
    """(s,) a copy of the floating-point buffers in the order of ``model.buffers()``; (0,) without any."""
    parts = [b.detach().flatten().float() for b in model.buffers() if b.is_floating_point()]
    return torch.cat(parts) if parts else torch.zeros(0)


@torch.no_grad()
def load_statistics(model: nn.Module, vector: Tensor) -> None:
    """Copy an (s,) vector into the model's floating-point buffers, in place."""
    buffers = [b for b in model.buffers() if b.is_floating_point()]
    for buffer, part in zip(buffers, torch.split(vector, [b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view(buffer.shape))


def with_statistics(model: nn.Module, vector: Tensor) -> nn.Module:
    """Return a copy of the model with these statistics; the model itself if there are none."""
    if not len(vector):
        return model
    model = copy.deepcopy(model)
    load_statistics(model, vector)
    return model


def channels_last(images: Tensor) -> Tensor:
    """(N, C, H, W) in channels-last memory order; copies only if needed."""
    if images.stride(1) == 1 and images.stride(3) == images.shape[1]:
        return images
    return images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


#: Samples per forward pass; fixed, so that results do not depend on memory or workers.
BATCH = 2000
#: Images per forward pass of a model, few enough for the layers' outputs to stay in the cache.
IMAGES = 200


@torch.no_grad()
def predict(model: nn.Module, vector: Tensor, inputs: Tensor) -> Tensor:
    """(samples, classes) logits with these (d,) parameters in eval mode; leaves the model unchanged.

    Runs on the model's device, wherever the parameters and inputs are.
    """
    training = [part for part in model.modules() if part.training]
    device = device_of(model, vector)
    inputs = inputs.to(device)
    parameters = split_parameters(model, vector.to(device))
    parts: tuple[Tensor, ...] = (inputs,)
    if inputs.ndim == 4:
        parameters = {n: channels_last(p) if p.ndim == 4 else p for n, p in parameters.items()}
        parts = torch.split(channels_last(inputs), IMAGES)
    model.eval()
    try:
        logits = [torch.func.functional_call(model, parameters, (part,)) for part in parts]
    finally:
        for part in training:  # one by one, as some parts may have been in eval mode before
            part.training = True
    return torch.cat(logits)


@torch.no_grad()
def wrong_and_loss(model: nn.Module, vector: Tensor, data: LabeledData) -> tuple[int, float]:
    """Count the misclassified samples of one batch, and sum all cross-entropies.

    Args:
        model: the architecture; left unchanged, used in eval mode.
        vector: (d,) its parameters.
        data: the batch.
    """
    logits = predict(model, vector, data.inputs)
    labels = data.labels.to(logits.device)
    wrong = int((logits.argmax(1) != labels).sum())
    return wrong, float(F.cross_entropy(logits, labels, reduction="sum"))


def batches(data: LabeledData, size: int = BATCH) -> list[LabeledData]:
    """Split the samples into batches, in order."""
    parts = zip(torch.split(data.inputs, size), torch.split(data.labels, size), strict=True)
    return [LabeledData(*part) for part in parts]


def mean_of(parts: Iterable[tuple[int, float]], count: int) -> tuple[float, float]:
    """Error rate in [0, 1] and mean loss over the batches of ``count`` samples; NaN without any."""
    if count == 0:
        return float("nan"), float("nan")
    wrong, loss = (sum(column) for column in zip(*parts, strict=True))
    return wrong / count, loss / count


def error_and_loss(
    model: nn.Module, vector: Tensor, data: LabeledData, batch: int = BATCH
) -> tuple[float, float]:
    """Error rate in [0, 1] and mean cross-entropy of the model with these parameters, in eval mode.

    Args:
        model: the architecture; left unchanged.
        vector: (d,) parameters.
        data: the samples; without any, both numbers are NaN.
        batch: samples per forward pass.
    """
    parts = (wrong_and_loss(model, vector, part) for part in batches(data, batch))
    return mean_of(parts, len(data.labels))
