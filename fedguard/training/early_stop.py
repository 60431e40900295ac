"""Early stopping of a client's training on its own held-out samples."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..contracts.data import LabeledData, Share
from ..contracts.local_training import LocalTraining
from ..core.seeds import generator
from .losses import Loss
from .parameters import flat_parameters, load_parameters, predict


def split(share: Share, settings: LocalTraining) -> tuple[Share, Share]:
    """A client's samples to train on, and those held out: the same ones in every round.

    At least one sample is on either side; a client with a single sample trains on it and holds out none.
    """
    count = len(share.rows)
    held = held_out(count, settings)
    order = torch.randperm(count, generator=generator(0, "held out by a client", count))
    mine, others = order[held:].sort().values, order[:held].sort().values
    return Share(share.data, share.rows[mine]), Share(share.data, share.rows[others])


def held_out(count: int, settings: LocalTraining) -> int:
    """How many of its samples a client holds out."""
    return min(count - 1, max(1, round(settings.holdout * count)))


class EarlyStop:
    """Stop once the held-out loss has not fallen for ``patience`` epochs, and go back to the best epoch.

    Args:
        model: the model in training.
        held: the held-out samples; without any, nothing stops.
        settings: with ``patience``.
        loss: what is trained.
        per_epoch: steps per epoch.
    """

    def __init__(
        self, model: nn.Module, held: Share, settings: LocalTraining, loss: Loss, per_epoch: int
    ) -> None:
        self._model, self._loss, self._patience = model, loss, settings.patience
        self._data = LabeledData(held.data.inputs[held.rows], held.data.labels[held.rows])
        self._per_epoch = per_epoch
        self._steps = self._waited = 0
        self._best = math.inf
        self._kept: tuple[Tensor, list[Tensor]] | None = None

    def after_step(self) -> bool:
        """Count a step, and return whether training ends here."""
        self._steps += 1
        if self._steps % self._per_epoch or not len(self._data.labels):
            return False
        now = flat_parameters(self._model)
        loss = float(self._loss(predict(self._model, now, self._data.inputs), self._data.labels))
        if loss < self._best:
            self._best, self._waited = loss, 0
            self._kept = now, [buffer.clone() for buffer in self._model.buffers()]
        else:
            self._waited += 1
        return self._waited >= self._patience

    @torch.no_grad()
    def finish(self) -> int:
        """Give the model the parameters of the best epoch; returns how many steps were done."""
        if self._kept is not None:
            load_parameters(self._model, self._kept[0])
            for buffer, old in zip(self._model.buffers(), self._kept[1], strict=True):
                buffer.copy_(old)
        return self._steps
