"""Server optimizers: how the global model moves along the aggregate."""

from __future__ import annotations

import logging
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor

from ..core.errors import ParameterError
from ..core.params import nearest
from ..core.state import State

_log = logging.getLogger(__name__)
#: The rules by name.
Rule: TypeAlias = Literal["sgd", "momentum", "adagrad", "adam", "yogi"]


class ServerOptimizer:
    """The aggregate Δ of a round as a pseudo-gradient.

    - sgd: w ← w + η Δ;
    - momentum: m ← β₁ m + Δ, w ← w + η m;
    - adagrad: v ← v + Δ², adam: v ← β₂ v + (1 − β₂) Δ², yogi: v ← v − (1 − β₂) Δ² sign(v − Δ²), each with
      m ← β₁ m + (1 − β₁) Δ (adagrad: m = Δ) and w ← w + η m / (√v + τ). v starts at τ².

    Neither the model nor the momenta change if the aggregate is exactly zero: no client was accepted then.
    They do not change either if a step is not finite, say on aggregates near the largest float.

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
        """(d,) the new global model, from the (d,) old one and the round's aggregate.

        Raises:
            ParameterError: the shapes differ from each other, or from those of the rounds before.
        """
        for other in (aggregate, self._momentum, self._square):
            if other is not None and other.shape != params.shape:
                raise ParameterError(
                    f"server optimizer {self.name}: the model has shape {tuple(params.shape)}, but the "
                    f"aggregate, or a momentum from earlier rounds, {tuple(other.shape)}"
                )
        if self.name != "sgd" and not aggregate.any():
            return params
        momentum, square = self._momenta(aggregate)
        if square is None:
            moved = params + self.lr * (aggregate if momentum is None else momentum)
        else:
            moved = params + self.lr * momentum / (square.sqrt() + self.tau)
        if not all(part is None or bool(part.isfinite().all()) for part in (moved, momentum, square)):
            _log.warning("server optimizer %s: the step is not finite; the model stays", self.name)
            return params
        self._momentum, self._square = momentum, square
        return moved

    def _momenta(self, aggregate: Tensor) -> tuple[Any, Tensor | None]:
        """The momenta after an aggregate; those that the rule does not have are None."""
        if self.name == "sgd":
            return None, None
        if self.name == "momentum":
            before = self._momentum
            return (aggregate.clone() if before is None else self.beta1 * before + aggregate), None
        old = torch.zeros_like(aggregate) if self._momentum is None else self._momentum
        adagrad = self.name == "adagrad"
        momentum = aggregate.clone() if adagrad else self.beta1 * old + (1 - self.beta1) * aggregate
        before = torch.full_like(aggregate, self.tau**2) if self._square is None else self._square
        return momentum, self._second(before, aggregate.square())

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
        """Restore a state that ``state_dict`` returned.

        Raises:
            ParameterError: a momentum in it is no tensor of finite numbers; nothing changes.
        """
        parts = {name: state.get(name) for name in ("momentum", "square")}
        for name, part in parts.items():
            if part is None:
                continue
            if not isinstance(part, Tensor) or not part.is_floating_point() or not part.isfinite().all():
                raise ParameterError(f"server optimizer {self.name}: {name} is no tensor of finite numbers")
            parts[name] = part.clone()
        self._momentum, self._square = parts["momentum"], parts["square"]
