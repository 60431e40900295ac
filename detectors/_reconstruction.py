"""FedREDefense's outer loop: distil knowledge that reproduces one client's update. Runs in any process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fedguard.errors import ParameterError
from fedguard.threads import single_thread

from ._unroll import INNER_LOOPS, Average


class Knowledge(NamedTuple):
    """A client's distilled local knowledge: K images, their label logits, and the inner learning rate."""

    images: Tensor
    labels: Tensor
    inner_lr: Tensor


@dataclass(frozen=True)
class Settings:
    """What is the same for all clients; :class:`FedREDefense` says what it means.

    Raises:
        ParameterError: a value is out of range.
    """

    threshold: float
    inner_steps: int
    lr_images: float
    lr_labels: float
    lr_inner_lr: float
    momentum: float
    loss_average: Average
    inner_loop: Literal["func", "higher"]
    stop_early: bool

    def __post_init__(self) -> None:
        check_positive({"threshold": self.threshold, "inner_steps": self.inner_steps})
        check_positive({"lr_images": self.lr_images, "lr_labels": self.lr_labels})
        check_positive({"lr_inner_lr": self.lr_inner_lr})
        if not 0 <= self.momentum < 1:
            raise ParameterError(f"fedredefense: momentum is {self.momentum}; it lies in [0, 1)")
        check_word("loss_average", self.loss_average, ("classes", "batch"))
        check_word("inner_loop", self.inner_loop, tuple(INNER_LOOPS))


@dataclass(frozen=True)
class Job:
    """One client's reconstruction: all that is needed, in plain picklable parts.

    Attributes:
        network: from ``virtual_network``.
        start: (d,) the global model.
        update: (d,) what the client sent.
        knowledge: where to start.
        iterations: M, at most so many outer iterations; 0 only measures the error.
        settings: the rest.
    """

    network: nn.Module
    start: Tensor
    update: Tensor
    knowledge: Knowledge
    iterations: int
    settings: Settings


class Result(NamedTuple):
    """What a reconstruction found.

    ``error`` is +Inf if it is undefined, and then there is no knowledge. ``iterations`` counts passes
    through the outer loop, the one that finds the error small enough included.
    """

    error: float
    iterations: int
    knowledge: Knowledge | None


def reconstruct(job: Job) -> Result:
    """Algorithm 2: e = ‖ŵ_N − w_0 − g‖² / ‖g‖², minimised by SGD with momentum from fresh buffers.

    One torch thread, so that the result does not depend on where it runs.
    """
    with single_thread(), torch.enable_grad():
        return _reconstruct(job)


def _reconstruct(job: Job) -> Result:
    settings = job.settings
    parameter = next(job.network.parameters())
    start, update = job.start.to(parameter.device), job.update.to(parameter.device)
    square = float(update.double().square().sum())
    if square == 0:
        return Result(math.inf, 0, None)
    loop = INNER_LOOPS[settings.inner_loop](job.network, start, settings.inner_steps, settings.loss_average)
    images, labels, inner_lr = leaves = [
        part.to(parameter.device, copy=True).requires_grad_() for part in job.knowledge
    ]
    optimizer = _optimizer(leaves, settings)
    goal = start + update
    error, step = math.inf, 0
    for step in range(job.iterations + 1):
        loss = (loop(images, labels.softmax(1), inner_lr) - goal).square().sum() / square
        error = float(loss.detach())
        if not math.isfinite(error):
            return Result(math.inf, min(step + 1, job.iterations), None)
        if step == job.iterations or (settings.stop_early and error < settings.threshold):
            break
        for leaf, gradient in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.grad = gradient
        optimizer.step()
    kept = Knowledge(*(leaf.detach().cpu() for leaf in leaves))
    return Result(error, min(step + 1, job.iterations), kept)


def _optimizer(leaves: list[Tensor], settings: Settings) -> torch.optim.SGD:
    rates = (settings.lr_images, settings.lr_labels, settings.lr_inner_lr)
    groups = [{"params": [leaf], "lr": rate} for leaf, rate in zip(leaves, rates, strict=True)]
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum)


def check_positive(numbers: Mapping[str, float]) -> None:
    """Refuse what is not a positive finite number (ParameterError)."""
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ParameterError(f"fedredefense: {name} is {value}; use a positive number")


def check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    """Refuse an unknown choice (ParameterError)."""
    if value not in words:
        raise ParameterError(f"fedredefense: {name} is {value!r}; use one of {', '.join(words)}")
