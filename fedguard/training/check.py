"""Everything about local training that can be wrong, found before anything trains."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator

import torch
from torch import nn

from ..contracts.local_training import LocalTraining
from ..core.errors import FedGuardError
from .augmentation import check_augmentation
from .losses import check_loss
from .optimizers import build_optimizer, build_scheduler, check_optimizer, check_scheduler
from .parameters import learned


def check_training(
    settings: LocalTraining,
    task: str,
    input_shape: tuple[int, ...],
    outputs: int,
    counts: Collection[int] = (),
) -> None:
    """Look up every name, build every part once, and try it on zeros.

    Args:
        settings: the training.
        task: what the labels are.
        input_shape: of one sample.
        outputs: of the model.
        counts: how many samples those who train have; the scheduler must last for each of them.

    Raises:
        ParameterError: a name or a parameter is wrong, or a part does not fit the data.
    """
    with _blame("loss"):
        check_loss(settings.loss, task, outputs)
    if settings.augment:
        with _blame("augment"):
            check_augmentation(settings.augment, torch.zeros(2, *input_shape))
    if settings.own_sgd:
        return
    with _blame("optimizer"):
        optimizer = build_optimizer([nn.Parameter(torch.zeros(2, 2))], settings)
    with _blame("scheduler"):
        build_scheduler(optimizer, settings)
    with _blame("optimizer"):
        check_optimizer(settings)
    with _blame("scheduler"):
        check_scheduler(settings, counts)


def check_takes(settings: LocalTraining, model: nn.Module) -> None:
    """Give the optimizer the parameters of the model: some refuse some shapes, as Muon does with vectors.

    Raises:
        ParameterError: it refuses them.
    """
    if not settings.own_sgd:
        with _blame("optimizer"):
            build_optimizer(list(learned(model).values()), settings)


@contextlib.contextmanager
def _blame(key: str) -> Iterator[None]:
    """Say which setting is to blame for an error."""
    try:
        yield
    except FedGuardError as error:
        error.key = key
        raise
