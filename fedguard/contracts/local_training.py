"""The configuration of local training."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..core.errors import ParameterError

#: Something by name: a name, or a mapping of ``name`` and its parameters.
Named: TypeAlias = "str | Mapping[str, Any]"


def named(spec: Named) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of something by name.

    Raises:
        ParameterError: there is no name.
    """
    if isinstance(spec, str):
        return spec, {}
    params = dict(spec) if isinstance(spec, Mapping) else {}
    name = params.pop("name", None)
    if not isinstance(name, str):
        raise ParameterError(f"training: cannot read {spec!r}: write a name, or a mapping with a name")
    return name, params


@dataclass(frozen=True)
class LocalTraining:
    """How a client trains. Exactly one of ``epochs`` and ``steps`` is given, the other is None.

    Attributes:
        epochs: passes over the client's data; the last batch of a pass may be smaller.
        steps: batches instead, through as many passes (the last one cut short) as it takes.
        batch_size: samples per batch.
        lr: learning rate.
        momentum: of SGD, in [0, 1).
        weight_decay: L2 penalty, added to the gradient.
        proximal: FedProx's μ: μ (w − w_start) is added to the gradient (Li et al., MLSys 2020, equation 2).
        wbc: FL-WBC: the standard deviation s of Laplace noise Υ; where |Ĥ_kk| ≤ |Υ_k|, a step also adds
            η Υ_k, so that no attack survives where the loss is flat. Ĥ_kk is the change of the gradient over
            the change of the parameter in the step before (Sun et al., NeurIPS 2021, Algorithm 1).
        optimizer: "sgd" (FedGuard's own), or any optimizer of ``torch.optim`` by its name in any case, or
            "module:Class", with its parameters: {name: adamw, betas: [0.9, 0.99]}. It gets ``lr``, and
            ``momentum`` and ``weight_decay`` unless they are 0. Its state does not outlive the round.
        scheduler: of the learning rate within a round: any of ``torch.optim.lr_scheduler`` by name, with its
            parameters; ``per: epoch`` (the default) moves it after each pass over the client's data,
            ``per: step`` after each batch. It starts anew in every round.
        lr_schedule: the learning rate over the rounds t of T: "constant", or "cosine":
            lr_min + (lr − lr_min) (1 + cos(π t/T))/2.
        lr_decay: a factor of the learning rate per round: γ^t.
        lr_min: where "cosine" ends.
        loss: cross_entropy (with label_smoothing), nll, bce, mse, l1, huber (with delta), or
            "module:function" (outputs, labels) → a scalar.
        clip: the largest norm of a step's gradient, with the proximal term, over all parameters; 0 does not
            clip.
        patience: stop after so many epochs in which the loss of the client's held-out samples did not fall,
            and return to its best epoch; 0 never stops early.
        holdout: the share of its samples that a client holds out for ``patience``; the same in every round.
        augment: changes to each batch of images: "flip" (p), "crop" (padding), "module:function"
            (inputs, generator) → inputs; one or a list.

    Raises:
        ParameterError: out of range, or both or none of ``epochs`` and ``steps``.
    """

    epochs: int | None = 1
    steps: int | None = None
    batch_size: int = 32
    lr: float = 0.01
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0
    wbc: float = 0.0
    optimizer: Named = "sgd"
    scheduler: Named | None = None
    lr_schedule: str = "constant"
    lr_decay: float = 1.0
    lr_min: float = 0.0
    loss: Named = "cross_entropy"
    clip: float = 0.0
    patience: int = 0
    holdout: float = 0.1
    augment: tuple[Named, ...] = ()

    def __post_init__(self) -> None:
        self._read_names()
        if (self.epochs is None) == (self.steps is None):
            raise ParameterError(
                f"training: epochs is {self.epochs} and steps is {self.steps}; "
                "give one and set the other to null"
            )
        for name in ("epochs", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ParameterError(f"training: {name} is {value}; use at least 1")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ParameterError(f"training: lr is {self.lr}; use a positive number")
        if not 0 <= self.momentum < 1:
            raise ParameterError(f"training: momentum is {self.momentum}; it lies in [0, 1)")
        for name in ("weight_decay", "proximal", "wbc", "clip", "patience", "lr_min"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ParameterError(f"training: {name} is {value}; it cannot be negative")
        self._check_extras()

    def _read_names(self) -> None:
        """Write names without parameters as text, and one augmentation as a list of one."""
        several = [self.augment] if isinstance(self.augment, str | Mapping) else list(self.augment)
        for name in ("optimizer", "loss", "scheduler"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None and name == "scheduler" else _short(value))
        object.__setattr__(self, "augment", tuple(map(_short, several)))

    def _check_extras(self) -> None:
        if self.lr_schedule not in ("constant", "cosine"):
            raise ParameterError(f"training: lr_schedule is {self.lr_schedule!r}; use 'constant' or 'cosine'")
        for name in ("lr_decay", "holdout"):
            value = getattr(self, name)
            if not 0 < value <= 1:
                raise ParameterError(f"training: {name} is {value}; it lies in (0, 1]")
        if self.patience and self.epochs is None:
            raise ParameterError("training: patience counts epochs; give epochs instead of steps")
        if self.wbc and not self.own_sgd:
            raise ParameterError("training: wbc is defined for sgd without a scheduler; leave the other out")

    @property
    def own_sgd(self) -> bool:
        """Whether steps are FedGuard's own SGD, which does not import ``torch.optim``."""
        return self.optimizer == "sgd" and self.scheduler is None

    @property
    def plain(self) -> bool:
        """Whether training is SGD on the cross-entropy with nothing added to it."""
        extras = (self.proximal, self.wbc, self.clip, self.patience, self.augment)
        return self.own_sgd and self.loss == "cross_entropy" and not any(extras)

    def in_round(self, index: int, rounds: int) -> LocalTraining:
        """The same with the learning rate of a round.

        Args:
            index: the round, t, from 0.
            rounds: how many there are, T.
        """
        lr = self.lr
        if self.lr_schedule == "cosine":
            lr = self.lr_min + (lr - self.lr_min) * (1 + math.cos(math.pi * index / rounds)) / 2
        lr *= self.lr_decay**index
        return self if lr == self.lr else dataclasses.replace(self, lr=lr)

    def steps_for(self, count: int) -> int:
        """The number of steps of a client with ``count`` samples."""
        return self.steps if self.steps is not None else (self.epochs or 0) * -(-count // self.batch_size)

    def effective_steps(self, count: int) -> float:
        """FedNova's ‖a‖₁ of a client with ``count`` samples: how far a constant gradient moves it.

        In steps of plain SGD: momentum increases it and the proximal term decreases it; without them it is
        the number of steps, which also stands for any other optimizer.

        Source: Wang et al., FedNova, NeurIPS 2020, §4.2.
        """
        return self.way(self.steps_for(count))

    def way(self, steps: int) -> float:
        """:meth:`effective_steps` of a client that has done so many steps."""
        if not self.own_sgd:
            return float(steps)
        way = velocity = 0.0
        for _ in range(steps):
            velocity = self.momentum * velocity + 1 - self.proximal * self.lr * way
            way += velocity
        return way


def _short(spec: Named) -> Named:
    name, params = named(spec)
    return {"name": name, **params} if params else name
