"""Optimized ALIE and IPM: the factor that moves the aggregate farthest."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import Tensor

from fedguard.contracts.attack import Attack, UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError, TooFewClientsError

from ._checks import require_positive
from ._line_search import line_maximize
from ._statistics import by_all, mean_and_std


class Optimized(Attack):
    """u' = μ + τ p with p = −σ ("alie") or −μ ("ipm"), τ = argmax ‖A(u', benign updates) − μ‖ by line search.

    μ and σ are per coordinate over the benign updates; σ is the population form. A is the defense in use:
    clients that the attacker's copy of the guard suspects are left out, then the aggregation rule is applied.
    Each of ``evals`` values of τ ≥ 0 asks it once. If the defense cannot judge the round, τ is ``start``.

    ByzFL's ALIE adds τ σ; here the sign is that of ``lie``. Its σ is the sample form. Its search knows the
    aggregation rule only.

    Args:
        attack: "alie" or "ipm" (Fall of Empires).
        evals: how many factors are tried; 16 in ByzFL.
        start: the first τ; 0 in ByzFL, which is no attack.
        delta: the first step; 1 in ByzFL.
        ratio: by which later steps shrink, in (0.5, 1); 0.8 in ByzFL.

    Raises:
        ParameterError: a parameter out of range.

    Source: Baruch et al., NeurIPS 2019, and Xie et al., UAI 2019; the search is LineMaximize of ByzFL (EPFL),
    attack_optimizers.py.
    """

    card = Card(
        "optimized",
        "ALIE or IPM with the factor that moves the aggregate farthest",
        "Baruch et al., A Little Is Enough, NeurIPS 2019; Xie et al., Fall of Empires, UAI 2019",
    )
    kind = "model"
    knowledge = frozenset({"benign_updates", "aggregator", "defense"})

    def __init__(
        self,
        attack: Literal["alie", "ipm"] = "alie",
        evals: int = 16,
        start: float = 0.0,
        delta: float = 1.0,
        ratio: float = 0.8,
    ) -> None:
        if attack not in ("alie", "ipm"):
            raise ParameterError(f"optimized: attack is {attack!r}; use 'alie' or 'ipm'")
        if evals < 1:
            raise ParameterError(f"optimized: evals is {evals}; use at least 1")
        if not 0 <= start < float("inf"):
            raise ParameterError(f"optimized: start is {start}; use a finite number of at least 0")
        require_positive("optimized", "delta", delta)
        if not 0.5 < ratio < 1:
            raise ParameterError(f"optimized: ratio is {ratio}; use a number in (0.5, 1)")
        self.attack = attack
        self.evals = evals
        self.start = start
        self.delta = delta
        self.ratio = ratio

    def craft(self, view: UpdateView) -> Tensor:
        """The same update for every malicious client."""
        mean, std = mean_and_std(view.reference_updates())
        path = -std if self.attack == "alie" else -mean

        def moved(factor: float) -> float:
            crafted = by_all(mean + factor * path, view)
            received = view.received(crafted)
            try:
                trusted = ~view.defense.suspects(received)
                total = view.aggregator(received, trusted.astype(np.float64))
            except TooFewClientsError:
                return 0.0
            return float((total.to(mean) - mean).norm())

        found = line_maximize(moved, self.evals, self.start, self.delta, self.ratio)
        return by_all(mean + found * path, view)
