"""Estimate from the last layer's bias update which labels a client trained on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedguard.training.parameters import fitting


def logits_of_bias(model: nn.Module, update: Tensor, num_classes: int) -> Tensor:
    """(C,) the update of the last layer's bias over its standard deviation; zeros without such a bias.

    The gradient of the mean cross-entropy with respect to that bias is mean(p) − mean(t), predictions minus
    labels. So the bias rises for labels that are more frequent in the data than in the predictions.

    Args:
        model: its last parameter counts as that bias if it has one entry per label.
        update: (d,) what the client sent.
        num_classes: C.
    """
    *_, last = fitting(model, len(update)).values()
    zeros = torch.zeros(num_classes)
    if num_classes < 2 or last.shape != (num_classes,):
        return zeros
    bias = update[-num_classes:].double().cpu()
    deviation = bias.std()
    return (bias / deviation).float() if deviation > 0 else zeros
