"""Which right or wrong labels an update teaches: the server's gradients by class and label."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fedguard.contracts.data import LabeledData
from fedguard.core.threads import single_thread
from fedguard.training.parameters import split_parameters


def generators(model: nn.Module, start: Tensor, data: LabeledData) -> Tensor | None:
    """(C, C, d) g_st = −∇ of the mean cross-entropy of the inputs of class s with the label t.

    −∇ L_st = ∇ mean z_t − ∇ mean ln Σ_b exp z_b over the inputs x of class s, z the logits: C + 1 backward
    passes per class. Returns None if an output of the model has no sample, or a gradient is not finite.
    """
    network = copy.deepcopy(model).eval()  # as for predictions: no dropout, running statistics
    parts = {
        name: part.detach().clone().requires_grad_()
        for name, part in split_parameters(network, start).items()
    }
    labels = torch.unique(data.labels).tolist()
    rows = []
    with single_thread(), torch.enable_grad():
        for label in labels:
            logits = torch.func.functional_call(network, parts, (data.inputs[data.labels == label],))
            if logits.shape[1] > len(labels):
                return None
            outputs = torch.cat([logits.mean(0), -logits.logsumexp(1).mean()[None]])
            gradients = torch.autograd.grad(
                outputs,
                list(parts.values()),
                torch.eye(len(outputs), device=outputs.device),
                allow_unused=True,
                materialize_grads=True,
                is_grads_batched=True,
            )
            flat = torch.cat([g.flatten(1) for g in gradients], 1)
            rows.append(flat[:-1] + flat[-1])
    found = torch.stack(rows)
    return found if torch.isfinite(found).all() else None
