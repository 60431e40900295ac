"""The server's gradients by class and label: what right and wrong labels teach a model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.data import LabeledData
from fedguard.core.threads import single_thread
from fedguard.training.parameters import laid_out, split_parameters


def right_gradients(model: nn.Module, start: Tensor, data: LabeledData) -> Tensor | None:
    """(C, d) g_c = −∇ of the mean cross-entropy on class c; None if an output of the model has no sample."""

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return -F.cross_entropy(logits, labels)[None]

    found = _gradients(model, start, data, loss)
    return None if found is None else found[:, 0]


def generators(model: nn.Module, start: Tensor, data: LabeledData) -> Tensor | None:
    """(C, C, d) g_st = −∇ of the mean cross-entropy of the inputs of class s with the label t.

    g_st = ∇ mean z_t − ∇ mean ln Σ_b exp z_b over the inputs of class s, z the logits: C + 1 backward passes
    per class. None if an output of the model has no sample, or a gradient is not finite.
    """

    def parts(logits: Tensor, labels: Tensor) -> Tensor:
        return torch.cat([logits.mean(0), -logits.logsumexp(1).mean()[None]])

    found = _gradients(model, start, data, parts)
    if found is None or not all(math.isfinite(end) for end in found.aminmax()):
        return None
    return found[:, :-1].add_(found[:, -1:])


def _gradients(
    model: nn.Module, start: Tensor, data: LabeledData, outputs: Callable[[Tensor, Tensor], Tensor]
) -> Tensor | None:
    """(C, k, d) the gradients of k outputs of the logits and labels of each class."""
    network = copy.deepcopy(model).eval()  # as for predictions: no dropout, running statistics
    named, inputs = laid_out(model, split_parameters(model, start), data.inputs)
    parts = {name: part.detach().clone().requires_grad_() for name, part in named.items()}
    found = None
    with single_thread(), torch.enable_grad():
        labels = torch.unique(data.labels).tolist()
        for c, label in enumerate(labels):
            mine = data.labels == label
            logits = torch.func.functional_call(network, parts, (inputs[mine],))
            if logits.shape[1] > len(labels):
                return None
            wanted = outputs(logits, data.labels[mine])
            if found is None:
                found = start.new_empty((len(labels), len(wanted), len(start)))
            for one, row in zip(wanted, found[c], strict=True):
                _flat(one, parts, out=row)
    return found


def _flat(output: Tensor, parts: dict[str, Tensor], out: Tensor) -> None:
    """Write the (d,) gradient of one output, which keeps its graph for the others."""
    gradients = torch.autograd.grad(
        output, list(parts.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    torch.cat([g.flatten() for g in gradients], out=out)
