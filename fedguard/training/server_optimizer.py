"""Server optimizers: how the global model moves along the aggregate."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..core.errors import ParameterError
from ..core.params import nearest
from ..core.state import State

#: The rules by name.
Rule: TypeAlias = Literal["sgd", "momentum", "adagrad", "adam", "yogi"]


class ServerOptimizer:
    """The aggregate Δ of a round as a pseudo-gradient.

    - sgd: w ← w + η Δ;
    - momentum: m ← β₁ m + Δ, w ← w + η m;
    - adagrad: v ← v + Δ², adam: v ← β₂ v + (1 − β₂) Δ², yogi: v ← v − (1 − β₂) Δ² sign(v − Δ²), each with
      m ← β₁ m + (1 − β₁) Δ (adagrad: m = Δ) and w ← w + η m / (√v + τ). v starts at τ².

    Neither the model nor the momenta change if the aggregate is exactly zero: no client was accepted then.

    Args:
        name: the rule: "sgd" (FedAvg), "momentum" (FedAvgM), or FedOpt's "adagrad", "adam", "yogi".
        lr: η.
        beta1: β₁, momentum; not used by sgd and adagrad.
        beta2: β₂, second momentum; used by adam and yogi.
        tau: τ, the degree of adaptivity; keeps divisions finite.

    Raises:
        ParameterError: there is no such rule, or a number is out of range.

    Example:
        >>> import torch
        >>> from fedguard import Guard, Round, ServerOptimizer
        >>> guard, optimizer = Guard("krum"), ServerOptimizer("momentum", lr=0.5)
        >>> params = torch.zeros(3)
        >>> outcome = guard.process(Round([[1.0, 0.0, 2.0]] * 4))
        >>> optimizer.step(params, outcome.aggregate)
        tensor([0.5000, 0.0000, 1.0000])

    Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 2; momentum: Hsu et al., 2019.
    """

    def __init__(
        self,
        name: Rule = "sgd",
        lr: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
    ) -> None:
        rules = get_args(Rule)
        if name not in rules:
            raise ParameterError(
                f"unknown server optimizer {name!r}{nearest(str(name), rules)} (known: {', '.join(rules)})"
            )
        if not (lr > 0 and tau > 0 and 0 <= beta1 < 1 and 0 <= beta2 < 1):
            raise ParameterError(
                f"server optimizer {name}: lr is {lr} and tau {tau}, they lie above 0; beta1 is {beta1} "
                f"and beta2 {beta2}, they lie in [0, 1)"
            )
        self.name, self.lr, self.beta1, self.beta2, self.tau = name, lr, beta1, beta2, tau
        self._momentum: Tensor | None = None
        self._square: Tensor | None = None

    def __repr__(self) -> str:
        """The rule and its numbers."""
        numbers = f"lr={self.lr}, beta1={self.beta1}, beta2={self.beta2}, tau={self.tau}"
        return f"{type(self).__name__}({self.name!r}, {numbers})"

    def step(self, params: Tensor, aggregate: Tensor) -> Tensor:
        """(d,) the new global model, from the (d,) old one and the round's aggregate."""
        if self.name == "sgd":
            return params + self.lr * aggregate
        if not aggregate.any():
            return params
        if self.name == "momentum":
            self._momentum = aggregate if self._momentum is None else self.beta1 * self._momentum + aggregate
            return params + self.lr * self._momentum
        old = torch.zeros_like(aggregate) if self._momentum is None else self._momentum
        self._momentum = (
            aggregate if self.name == "adagrad" else self.beta1 * old + (1 - self.beta1) * aggregate
        )
        before = torch.full_like(aggregate, self.tau**2) if self._square is None else self._square
        self._square = self._second(before, aggregate.square())
        return params + self.lr * self._momentum / (self._square.sqrt() + self.tau)

    def _second(self, before: Tensor, square: Tensor) -> Tensor:
        rest = 1 - self.beta2
        if self.name == "adagrad":
            return before + square
        if self.name == "adam":
            return self.beta2 * before + rest * square
        return before - rest * square * (before - square).sign()

    def state_dict(self) -> State:
        """Those momenta that exist, to save between rounds (:func:`fedguard.state.save`)."""
        parts = {"momentum": self._momentum, "square": self._square}
        return {name: part.clone() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self._momentum, self._square = state.get("momentum"), state.get("square")
