"""Lazy workers (free riders): send an update without training."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.core.state import State

from ._checks import require_positive
from ._statistics import by_all

MODES = ("zero", "random", "previous", "noisy", "disguised")


class LazyWorker(Attack):
    """u' without training, from Δ = w_{t−1} − w_{t−2}, the last change of the global model:

    - zero: 0, which returns the global model (Fraboni's plain free rider);
    - random: U[−R, R] per coordinate (Lin's random weights), R = ``noise``;
    - previous: Δ (Lin's delta weights);
    - noisy: Δ + N(0, σ²) per coordinate (Lin's advanced delta weights), σ = ``noise``;
    - disguised: N(0, (coefficient · s · t^−decay)²) per coordinate (Fraboni's disguised free rider), s the
      mean absolute change per parameter in the first change of the global model that the attacker sees
      (``noise`` until then), t the round (1 in the first two).

    Lin et al. send gradients, where Δ has the opposite sign. If the global model has not changed, as in the
    first round, Δ is 0. Noise is drawn anew for every client. FedSecurity lists the attack without choosing a
    variant.

    Args:
        mode: one of the five above.
        noise: R or σ; 1e-3 in both papers.
        coefficient: the factor on s in "disguised"; 1 and 3 in the paper.
        decay: the exponent of t in "disguised", the paper's γ; 0.5, 1 and 2 there.

    Raises:
        ParameterError: an unknown mode or a parameter out of range.

    Source: Lin et al., arXiv 1911.12560 (2019); Fraboni et al., AISTATS 2021, and its released code for s;
    FedSecurity, KDD 2024, Table 2.
    """

    card = Card(
        "lazy_worker",
        "free riders that send an update without training",
        "Lin et al., Free-riders in Federated Learning, arXiv 2019; Fraboni et al., AISTATS 2021",
    )
    kind = "model"

    def __init__(
        self,
        mode: Literal["zero", "random", "previous", "noisy", "disguised"] = "zero",
        noise: float = 1e-3,
        coefficient: float = 1.0,
        decay: float = 1.0,
    ) -> None:
        if mode not in MODES:
            raise ParameterError(f"lazy_worker: mode is {mode!r}; use one of {', '.join(MODES)}")
        require_positive("lazy_worker", "noise", noise)
        require_positive("lazy_worker", "coefficient", coefficient)
        require_positive("lazy_worker", "decay", decay)
        self.mode = mode
        self.noise = noise
        self.coefficient = coefficient
        self.decay = decay
        self._first_change: float | None = None

    def craft(self, view: UpdateView) -> Tensor:
        """An update for every malicious client."""
        change = view.global_params.double() - view.previous_params
        if self.mode == "zero":
            return torch.zeros_like(view.own_updates)
        if self.mode == "previous":
            return by_all(change, view)
        shape = view.own_updates.shape
        if self.mode == "random":
            drawn = 2 * torch.rand(shape, generator=view.generator) - 1
            return self.noise * drawn.to(view.own_updates.device)
        drawn = torch.randn(shape, generator=view.generator).to(view.own_updates.device)
        if self.mode == "noisy":
            return by_all(change, view) + self.noise * drawn
        seen = self._seen(view)
        size = self.noise if seen is None else seen
        return drawn * (self.coefficient * size * math.pow(max(view.index, 1), -self.decay))

    def commit(self, view: UpdateView, crafted: Tensor) -> None:
        """Store the size of the first change of the global model."""
        self._first_change = self._seen(view)

    def state_dict(self) -> State:
        """The size of the first change seen."""
        return {"first_change": self._first_change}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._first_change = state["first_change"]

    def _seen(self, view: UpdateView) -> float | None:
        """s, or None as long as the global model has not changed."""
        if self._first_change is not None:
            return self._first_change
        change = float((view.global_params.double() - view.previous_params).abs().mean())
        return change if change > 0 else None
