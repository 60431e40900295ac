"""FedREDefense's outer loop: distill knowledge that reproduces a client's update. Runs in any process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from fedguard.core.errors import ParameterError
from fedguard.core.threads import single_thread

from ._spectrum import least_error
from ._unroll import INNER_LOOPS, Average, InnerLoop


class Knowledge(NamedTuple):
    """A client's distilled local knowledge: K images, their label logits, and the inner learning rate."""

    images: Tensor
    labels: Tensor
    inner_lr: Tensor


@dataclass(frozen=True)
class Settings:
    """What is the same for all clients; :class:`FedREDefense` explains each. The defaults are the paper's.

    Raises:
        ParameterError: a value is out of range.
    """

    threshold: float = 0.6
    inner_steps: int = 5
    optimizer: Literal["sgd", "adam"] = "sgd"
    lr_images: float = 0.1
    lr_labels: float = 0.05
    lr_inner_lr: float = 5e-5
    momentum: float = 0.0
    loss_average: Average = "classes"
    inner_loop: Literal["closed", "func", "higher"] = "closed"
    stop_early: bool = True
    inner_rate: Literal["learnt", "matched"] = "learnt"
    give_up_after: int = 0
    spectral_bound: bool = False

    def __post_init__(self) -> None:
        check_positive({"threshold": self.threshold, "inner_steps": self.inner_steps})
        check_positive({"lr_images": self.lr_images, "lr_labels": self.lr_labels})
        check_positive({"lr_inner_lr": self.lr_inner_lr})
        if not 0 <= self.momentum < 1:
            raise ParameterError(f"fedredefense: momentum is {self.momentum}; it lies in [0, 1)")
        if self.give_up_after < 0:
            raise ParameterError(f"fedredefense: give_up_after is {self.give_up_after}; 0 never gives up")
        check_word("optimizer", self.optimizer, ("sgd", "adam"))
        check_word("inner_rate", self.inner_rate, ("learnt", "matched"))
        check_word("loss_average", self.loss_average, ("classes", "batch"))
        check_word("inner_loop", self.inner_loop, tuple(INNER_LOOPS))


class Task(NamedTuple):
    """One client's reconstruction.

    Attributes:
        update: (d,) what the client sent.
        knowledge: where to start.
        iterations: M, the most outer iterations; 0 only measures the error.
    """

    update: Tensor
    knowledge: Knowledge
    iterations: int


@dataclass(frozen=True)
class Job:
    """The reconstructions of some clients, with all they need, picklable.

    Attributes:
        network: from ``virtual_network``.
        start: (d,) the global model.
        tasks: one per client.
        settings: the same for all clients.
    """

    network: nn.Module
    start: Tensor
    tasks: list[Task]
    settings: Settings


class Result(NamedTuple):
    """What a reconstruction found.

    Attributes:
        error: e; +Inf if it is undefined.
        iterations: passes through the outer loop, including the one that finds the error small enough.
        knowledge: what was distilled; None if e is undefined, or is the spectral bound.
    """

    error: float
    iterations: int
    knowledge: Knowledge | None


def reconstruct(job: Job) -> list[Result]:
    """Algorithm 2: minimize e = ‖ŵ_N − w_0 − g‖² / ‖g‖², client by client, each with a new optimizer.

    One torch thread, so that the result does not depend on where it runs.
    """
    with single_thread(), torch.enable_grad():
        settings = job.settings
        # A copy has the alignment of our allocator, so that every process computes the same bits.
        start = job.start.to(next(job.network.parameters()).device, copy=True)
        make = INNER_LOOPS[settings.inner_loop]
        loop = make(job.network, start, settings.inner_steps, settings.loss_average)
        return [_reconstruct(job, task, loop, start) for task in job.tasks]


def _reconstruct(job: Job, task: Task, loop: InnerLoop, start: Tensor) -> Result:
    settings, update = job.settings, task.update.to(start.device)
    square = float(update.double().square().sum())
    if square == 0:
        return Result(math.inf, 0, None)
    if settings.spectral_bound and task.iterations:
        bound = least_error(job.network, update, len(task.knowledge.images), settings.inner_steps)
        if bound > settings.threshold:
            return Result(bound, 0, None)
    images, labels, inner_lr = leaves = [
        part.to(start.device, copy=True).requires_grad_() for part in task.knowledge
    ]
    matched, linear = settings.inner_rate == "matched", settings.inner_steps == 1
    trained = leaves[:2] if matched else leaves
    optimizer = _optimizer(trained, settings)
    errors: list[float] = []
    for step in range(task.iterations + 1):
        found = loop(images, labels.softmax(1), inner_lr) - start
        scale = _nearest(found.detach(), update) if matched else 1.0
        loss = (scale * found - update).square().sum() / square
        # With one inner step the result is linear in α, so this is the error of the knowledge with α scaled.
        now = loss if linear or not matched else (found - update).square().sum() / square
        errors.append(float(now.detach()))
        if not math.isfinite(errors[-1]):
            return Result(math.inf, min(step + 1, task.iterations), None)
        done = step == task.iterations or _decided(errors, task.iterations, settings)
        if not done:
            for leaf, gradient in zip(trained, torch.autograd.grad(loss, trained), strict=True):
                leaf.grad = gradient
            optimizer.step()
        if linear or not done:
            inner_lr.detach().mul_(scale)
        if done:
            break
    kept = Knowledge(*(leaf.detach().cpu() for leaf in leaves))
    return Result(errors[-1], min(step + 1, task.iterations), kept)


def _decided(errors: list[float], iterations: int, settings: Settings) -> bool:
    """Whether the error is below the threshold, or would not get there in time at its latest pace."""
    if not settings.stop_early:
        return False
    now, window = errors[-1], settings.give_up_after
    if now < settings.threshold:
        return True
    if window == 0 or len(errors) <= window:
        return False
    pace = (errors[-1 - window] - now) / window
    return now - pace * (iterations - len(errors) + 1) >= settings.threshold


def _nearest(found: Tensor, update: Tensor) -> float:
    """⟨f, g⟩ / ‖f‖², the factor on α that brings a reconstruction linear in α nearest to the update.

    At least a tenth of ‖g‖ / ‖f‖, so that α stays positive where the two point apart.
    """
    f, g = found.double(), update.double()
    length, goal = float(f.norm()), float(g.norm())
    return max(float(f @ g) / (length * goal), 0.1) * goal / length if length > 0 else 1.0


def _optimizer(leaves: list[Tensor], settings: Settings) -> torch.optim.Optimizer:
    rates = (settings.lr_images, settings.lr_labels, settings.lr_inner_lr)
    groups = [{"params": [leaf], "lr": rate} for leaf, rate in zip(leaves, rates, strict=False)]
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, betas=(0.9, 0.999))
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum)


def check_positive(numbers: Mapping[str, float]) -> None:
    """Raise a ParameterError unless all are positive and finite."""
    for name, value in numbers.items():
        if not (math.isfinite(value) and value > 0):
            raise ParameterError(f"fedredefense: {name} is {value}; use a positive number")


def check_word(name: str, value: str, words: tuple[str, ...]) -> None:
    """Raise a ParameterError for an unknown choice."""
    if value not in words:
        raise ParameterError(f"fedredefense: {name} is {value!r}; use one of {', '.join(words)}")
