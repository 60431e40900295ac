"""BackdoorIndicator's task: its data, planting it into a model, and what a model still knows of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name
from torch.nn.modules.batchnorm import _NormBase

from ..contracts.data import LabeledData
from ..contracts.server import Server
from ..core.errors import NeedError, ParameterError
from .layout import same_layout
from .parameters import device_of, load_parameters, predict, split_parameters
from .randomness import drawn_from
from .unlike import unlike_inputs

#: Samples per step; a last batch with fewer is left out, as in the authors' code.
BATCH = 64
#: Epochs after which the authors multiply the learning rate by ``DECAY``.
MILESTONES = (10, 20, 30, 160, 200, 240, 280, 320, 360)
DECAY = 0.8
MOMENTUM, WEIGHT_DECAY = 0.9, 0.0005


@dataclass(frozen=True)
class PlantedTask:
    """Inputs unlike the clients' with labels that mean nothing, the same in every round.

    Labels are as even as possible over the classes, and shuffled. The server's seed determines inputs and
    labels, so a stage and a detector with the same settings know the same task.

    Args:
        samples: how many; rounded down to whole batches of 64 (unless there is less than one).
        source: see :func:`fedguard.training.unlike.unlike_inputs`.
        standardize: see there.

    Raises:
        ParameterError: fewer than two samples.
    """

    samples: int
    source: str
    standardize: bool

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ParameterError(f"indicator task: samples is {self.samples}; use at least 2")

    def data(self, server: Server) -> LabeledData:
        """The samples, on the CPU.

        Raises:
            NeedError: the server does not know the shape of its inputs, or the number of classes.
            ParameterError: the source does not fit the inputs.
        """
        if server.input_shape is None or server.num_classes is None:
            raise NeedError(
                "the indicator task needs Server(input_shape=…, num_classes=…) for its inputs and labels"
            )
        count = self.samples if self.samples < BATCH else self.samples // BATCH * BATCH
        draw = server.generator("indicator inputs")
        inputs = unlike_inputs(self.source, count, server.input_shape, draw, self.standardize)
        order = torch.randperm(count, generator=server.generator("indicator labels"))
        return LabeledData(inputs, (torch.arange(count) % server.num_classes)[order])


def planted(
    model: nn.Module,
    start: Tensor,
    data: LabeledData,
    epochs: int,
    lr: float,
    mu: float,
    draw: torch.Generator,
) -> Tensor:
    """(d,) parameters w after SGD from ``start`` on CE(w; data) + μ/2 · ‖w − start‖.

    The norm is not squared. Momentum 0.9, weight decay 0.0005, batches in the same order in every epoch, and
    a learning rate that falls by 0.8 after the epochs in ``MILESTONES``: the authors' settings. BatchNorm
    normalizes by the batches of this data, so its statistics do not matter.

    Args:
        model: the architecture; left unchanged.
        start: (d,) the parameters to start from.
        data: the samples.
        epochs: passes over the samples.
        lr: the learning rate at first.
        mu: μ, how strongly the parameters are held near the start.
        draw: for modules that draw random numbers, such as Dropout.
    """
    own = copy.deepcopy(model).train()
    device = device_of(own, start)
    origin = start.to(device, torch.float32)
    weights = origin.clone().requires_grad_(True)
    inputs, labels = (part.to(device) for part in data)
    batches = list(zip(torch.split(inputs, BATCH), torch.split(labels, BATCH), strict=True))
    optimizer = torch.optim.SGD([weights], lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(MILESTONES), DECAY)
    with drawn_from(draw, device):
        for _ in range(epochs):
            for taken, wanted in batches:
                logits = torch.func.functional_call(own, split_parameters(own, weights), (taken,))
                distance = torch.linalg.vector_norm(weights - origin)
                loss = F.cross_entropy(logits, wanted) + mu / 2 * distance
                (weights.grad,) = torch.autograd.grad(loss, weights)
                optimizer.step()
            schedule.step()
    return weights.detach()


def seen_by(model: nn.Module, vector: Tensor, inputs: Tensor) -> nn.Module:
    """A copy of the model whose BatchNorm statistics are those of the inputs, batch by batch, at ``vector``.

    The model itself if it has no such statistics.
    """
    if not _with_statistics(model):
        return model
    own = copy.deepcopy(model).eval()
    same_layout(own, model)
    load_parameters(own, vector)
    for part in _with_statistics(own):
        part.reset_running_stats()
        part.momentum = None  # the plain mean over the batches
        part.train()
    with torch.no_grad():
        for taken in torch.split(inputs.to(device_of(own, vector)), BATCH):
            own(taken)
    return own.eval()


def _with_statistics(model: nn.Module) -> list[_NormBase]:
    return [part for part in model.modules() if isinstance(part, _NormBase) and part.track_running_stats]


@dataclass(frozen=True)
class Known:
    """What a model knows of the indicator task.

    Attributes:
        overall: the share of the samples that get their label; NaN if a prediction is not finite.
        best: the largest such share among the samples of one label; NaN likewise.
        label: that label, the lowest of several.
    """

    overall: float
    best: float
    label: int


def known(model: nn.Module, vector: Tensor, data: LabeledData) -> Known:
    """Measure a model with these (d,) parameters; its statistics should be those of :func:`seen_by`."""
    logits = predict(model, vector, data.inputs).cpu()
    if not logits.isfinite().all():
        return Known(float("nan"), float("nan"), 0)
    right = logits.argmax(1) == data.labels
    shares = [float(right[data.labels == c].double().mean()) for c in range(int(data.labels.max()) + 1)]
    best = max(shares)
    return Known(float(right.double().mean()), best, shares.index(best))
