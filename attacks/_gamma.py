"""What Min-Max and Min-Sum share: go as far along a perturbation as a distance bound allows."""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor

from fedguard.attack import Attack, Knowledge, UpdateView, limit_knowledge
from fedguard.errors import ParameterError
from fedguard.updates import Updates

from ._checks import require_spread
from ._statistics import by_all, mean_and_std

Perturbation = Literal["unit", "std", "sign"]


def largest_step(a: Tensor, b: Tensor, c: Tensor, bound: Tensor) -> float:
    """The largest γ ≥ 0 with a_i + 2γ b_i + γ² c ≤ bound for every i, given a_i ≤ bound.

    A distance ‖u − g + γp‖² is such a quadratic, so the boundary is its positive root and no search is
    needed; the root is written so that nothing cancels. 0 if there is no direction (c = 0) or no room
    (bound = 0).

    Args:
        a: (k,) float64.
        b: (k,).
        c: scalar, ≥ 0.
        bound: scalar.
    """
    if c == 0 or bound == 0:
        return 0.0
    room = (bound - a).clamp(min=0)
    root = (b.square() + c * room).sqrt()
    steps = torch.where(b > 0, room / (b + root), (root - b) / c)
    return float(steps.min())


class FarthestStep(Attack):
    """g − γ·p for every malicious client, g the mean of the known updates; subclasses bound γ.

    Args:
        perturbation: p: "unit" is g/‖g‖, "std" the standard deviation per coordinate, "sign" sign(g).
        knowledge: "full": all benign updates; "partial": those of the attacker's own clients.
    """

    kind = "model"
    knowledge = frozenset({"benign_updates"})

    def __init__(self, perturbation: Perturbation = "std", knowledge: Knowledge = "full") -> None:
        if perturbation not in ("unit", "std", "sign"):
            raise ParameterError(
                f"{self.name}: perturbation is {perturbation!r}; use 'unit', 'std' or 'sign'"
            )
        self.perturbation = perturbation
        self.knowledge = limit_knowledge(knowledge)

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse a single known update: γ would be 0."""
        require_spread(self.name, n - m if self.knowledge else m, m)

    @abstractmethod
    def step(self, updates: Updates, along: Tensor, length: Tensor) -> float:
        """The largest γ that the attack allows.

        Args:
            updates: the k known updates u_i.
            along: (k,) ⟨u_i − g, p⟩.
            length: ‖p‖².
        """

    def craft(self, view: UpdateView) -> Tensor:
        """Go as far as allowed."""
        updates = Updates(view.reference())
        mean, std = mean_and_std(updates.matrix)
        p = self._direction(mean, std)
        along = mean.new_zeros(updates.n)
        start = 0
        for block in updates.blocks():
            stop = start + block.shape[1]
            along += (block - mean[start:stop]) @ p[start:stop]
            start = stop
        return by_all(mean - self.step(updates, along, p @ p) * p, view)

    def _direction(self, mean: Tensor, std: Tensor) -> Tensor:
        if self.perturbation == "std":
            return std
        if self.perturbation == "sign":
            return mean.sign()
        norm = mean.norm()
        return mean / norm if norm > 0 else mean
