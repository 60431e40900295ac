"""The configuration of local training."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..core.errors import ParameterError


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

    def __post_init__(self) -> None:
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
        for name in ("weight_decay", "proximal", "wbc"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                raise ParameterError(f"training: {name} is {value}; it cannot be negative")

    def steps_for(self, count: int) -> int:
        """The number of steps of a client with ``count`` samples."""
        return self.steps if self.steps is not None else (self.epochs or 0) * -(-count // self.batch_size)

    def effective_steps(self, count: int) -> float:
        """FedNova's ‖a‖₁: how far a constant gradient moves this client, in steps of plain SGD.

        Momentum increases it and the proximal term decreases it; without them it is the number of steps.

        Source: Wang et al., FedNova, NeurIPS 2020, §4.2.
        """
        way = velocity = 0.0
        for _ in range(self.steps_for(count)):
            velocity = self.momentum * velocity + 1 - self.proximal * self.lr * way
            way += velocity
        return way
