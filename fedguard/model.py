"""Models as flat parameter vectors: the form in which clients' updates and detectors meet them.

Only parameters count. Buffers (batch-norm statistics) are neither sent nor scored.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from .errors import RoundError
from .server import Labelled


def flat_parameters(model: nn.Module) -> Tensor:
    """(d,) the parameters in the order of ``model.parameters()``, a copy without gradient."""
    return torch.cat([p.detach().flatten() for p in model.parameters()])


def split_parameters(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """A (d,) vector as tensors by parameter name, views of the vector.

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


@torch.no_grad()
def error_and_loss(
    model: nn.Module, vector: Tensor, data: Labelled, batch: int = 2000
) -> tuple[float, float]:
    """Error rate in [0, 1] and mean cross-entropy of the model with these parameters, in eval mode.

    Args:
        model: the architecture; left unchanged.
        vector: (d,) parameters.
        data: the samples; without any, both numbers are NaN.
        batch: samples per forward pass; fixed, so that results do not depend on memory or workers.
    """
    training = [part for part in model.modules() if part.training]
    model.eval()
    parameters = split_parameters(model, vector)
    wrong, loss = 0, 0.0
    batches = zip(torch.split(data.inputs, batch), torch.split(data.labels, batch), strict=True)
    try:
        for inputs, labels in batches:
            logits = torch.func.functional_call(model, parameters, (inputs,))
            wrong += int((logits.argmax(1) != labels).sum())
            loss += float(F.cross_entropy(logits, labels, reduction="sum"))
    finally:
        for part in training:  # one by one: a part may have been in eval mode on purpose
            part.training = True
    return wrong / len(data.labels), loss / len(data.labels)
