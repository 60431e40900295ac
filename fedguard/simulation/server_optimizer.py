"""Server optimizers: how the global model moves along the aggregate."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.state import State
from .settings import ServerSettings


class ServerOptimizer:
    """The aggregate Δ as a pseudo-gradient.

    - sgd: w ← w + η Δ;
    - momentum: m ← β₁ m + Δ, w ← w + η m;
    - adagrad: v ← v + Δ², adam: v ← β₂ v + (1 − β₂) Δ², yogi: v ← v − (1 − β₂) Δ² sign(v − Δ²), each with
      m ← β₁ m + (1 − β₁) Δ (adagrad: m = Δ) and w ← w + η m / (√v + τ). v starts at τ².

    Neither the model nor the momenta change if the aggregate is exactly zero: no client was accepted then.

    Args:
        settings: the optimizer, η, β₁, β₂ and τ.

    Source: Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 2; momentum: Hsu et al., 2019.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self._momentum: Tensor | None = None
        self._square: Tensor | None = None

    def step(self, params: Tensor, aggregate: Tensor) -> Tensor:
        """(d,) the new global model."""
        s = self.settings
        if s.optimizer == "sgd":
            return params + s.lr * aggregate
        if not aggregate.any():
            return params
        if s.optimizer == "momentum":
            self._momentum = aggregate if self._momentum is None else s.beta1 * self._momentum + aggregate
            return params + s.lr * self._momentum
        old = torch.zeros_like(aggregate) if self._momentum is None else self._momentum
        self._momentum = aggregate if s.optimizer == "adagrad" else s.beta1 * old + (1 - s.beta1) * aggregate
        before = torch.full_like(aggregate, s.tau**2) if self._square is None else self._square
        self._square = self._second(before, aggregate.square())
        return params + s.lr * self._momentum / (self._square.sqrt() + s.tau)

    def _second(self, before: Tensor, square: Tensor) -> Tensor:
        rest = 1 - self.settings.beta2
        if self.settings.optimizer == "adagrad":
            return before + square
        if self.settings.optimizer == "adam":
            return self.settings.beta2 * before + rest * square
        return before - rest * square * (before - square).sign()

    def state_dict(self) -> State:
        """Those momenta that exist."""
        parts = {"momentum": self._momentum, "square": self._square}
        return {name: part.clone() for name, part in parts.items() if part is not None}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self._momentum, self._square = state.get("momentum"), state.get("square")
