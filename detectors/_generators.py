"""The server's gradients by class and label: what right and wrong labels teach a model."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.data import LabeledData
from fedguard.core.threads import single_thread
from fedguard.training.parameters import split_parameters


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
    if found is None or not torch.isfinite(found).all():
        return None
    return found[:, :-1] + found[:, -1:]


def _gradients(
    model: nn.Module, start: Tensor, data: LabeledData, outputs: Callable[[Tensor, Tensor], Tensor]
) -> Tensor | None:
    """(C, k, d) the gradients of k outputs of the logits and labels of each class."""
    network = copy.deepcopy(model).eval()  # as for predictions: no dropout, running statistics
    named = split_parameters(network, start).items()
    parts = {name: part.detach().clone().requires_grad_() for name, part in named}
    rows = []
    with single_thread(), torch.enable_grad():
        labels = torch.unique(data.labels).tolist()
        for label in labels:
            mine = data.labels == label
            logits = torch.func.functional_call(network, parts, (data.inputs[mine],))
            if logits.shape[1] > len(labels):
                return None
            rows.append(torch.stack([_flat(one, parts) for one in outputs(logits, data.labels[mine])]))
    return torch.stack(rows)


def _flat(output: Tensor, parts: dict[str, Tensor]) -> Tensor:
    """(d,) the gradient of one output, which keeps its graph for the others."""
    gradients = torch.autograd.grad(
        output, list(parts.values()), retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([g.flatten() for g in gradients])
