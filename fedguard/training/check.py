"""Everything about local training that can be wrong, found before anything trains."""

from __future__ import annotations

import torch

from ..contracts.local_training import LocalTraining
from .augmentation import check_augmentation
from .losses import check_loss
from .optimizers import check_optimizer


def check_training(settings: LocalTraining, task: str, input_shape: tuple[int, ...], outputs: int) -> None:
    """Look up every name, build every part once, and try it on zeros.

    Raises:
        ParameterError: a name or a parameter is wrong, or a part does not fit the data.
    """
    check_loss(settings.loss, task, outputs)
    if settings.augment:
        check_augmentation(settings.augment, torch.zeros(2, *input_shape))
    if not settings.own_sgd:
        check_optimizer(settings)
