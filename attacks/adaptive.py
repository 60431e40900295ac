"""Adaptive scaling: any attack, scaled as far as the defense accepts it."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedguard.contracts.attack import Knowledge, UpdateView, limit_knowledge
from fedguard.contracts.card import Card
from fedguard.contracts.nested import AttackSpec
from fedguard.core.errors import ParameterError, TooFewClientsError

from ._checks import require_positive
from ._wrapped import Wrapped


class Adaptive(Wrapped):
    """u'_i = λ_i · g_i, g_i the update of another attack, λ_i the largest factor found that is not suspected.

    Per malicious client, λ starts at ``start`` and δ at ``step``: λ ← λ + δ; if the defense then suspects
    the client, λ ← λ − δ; δ ← δ / 2, as long as δ ≥ ``precision``. All malicious clients search at the
    same time, so each query of the defense is one round with all candidates. As in the paper, the initial
    factor itself is never tested: with start 1, an attack that is detected as it is remains unchanged; with
    start 0 it can also shrink.

    The attacker queries its own copy of the whole guard (detectors with their history, rule, policy) with
    the round as the server would receive it. If the guard cannot judge so few clients (with ``knowledge:
    partial``), every factor stays at ``start``.

    Args:
        attack: the attack to scale: a name, or a mapping with name and parameters.
        start: the initial λ, ≥ 0.
        step: the initial δ, > 0.
        precision: the smallest δ, > 0.
        knowledge: "full" queries rounds with all benign updates; "partial" rounds of the attacker's own
            clients only, which suffices for detectors that judge each client separately.

    Raises:
        ParameterError: a parameter out of range, or an attack that cannot be built.

    Source: Xie et al., FedREDefense, ICML 2024, Algorithm 3 (there on label flips; δ = 2, precision 0.125).
    """

    card = Card(
        "adaptive",
        "scale another attack as far as the defense accepts it",
        "Xie et al., FedREDefense, ICML 2024",
    )
    knowledge = frozenset({"benign_updates", "defense"})
    exempt = MappingProxyType(
        {
            "what it overrides fits its kind": "it does what the inner attack does",
            "more knowledge is used": "only the defense decides on the factor",
            "what is there is used": "the queried round contains the updates that are known",
        }
    )

    def __init__(
        self,
        attack: AttackSpec = "label_flip",
        start: float = 1.0,
        step: float = 2.0,
        precision: float = 0.125,
        knowledge: Knowledge = "full",
    ) -> None:
        if not 0 <= start < float("inf"):
            raise ParameterError(f"{self.name}: start is {start}; use a finite number of at least 0")
        require_positive(self.name, "step", step)
        require_positive(self.name, "precision", precision)
        if precision > step:
            raise ParameterError(f"{self.name}: precision is {precision}, above the first step {step}")
        super().__init__(attack)
        self.start = start
        self.step = step
        self.precision = precision
        self.knowledge = self.attack.knowledge | limit_knowledge(knowledge) | {"defense"}

    def craft(self, view: UpdateView) -> Tensor:
        """Search for the factors and apply them."""
        base = self.attack.craft(view)
        factors = np.full(len(base), self.start)
        step = self.step
        while step >= self.precision:
            try:
                caught = view.suspected(_scaled(base, factors + step))
            except TooFewClientsError:
                break
            factors = np.where(caught, factors, factors + step)
            step /= 2
        return _scaled(base, factors)


def _scaled(base: Tensor, factors: np.ndarray[Any, Any]) -> Tensor:
    return base * torch.as_tensor(factors, dtype=base.dtype, device=base.device)[:, None]
