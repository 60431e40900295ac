"""The base of attacks that send g − γ·p, such as Min-Max and Min-Sum."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, Knowledge, UpdateView, limit_knowledge
from fedguard.core.errors import ParameterError
from fedguard.geometry.updates import Updates

from ._checks import require_spread
from ._statistics import along, by_all, mean_and_std

Perturbation = Literal["unit", "std", "sign"]


def largest_step(a: Tensor, b: Tensor, c: Tensor, bound: Tensor) -> float:
    """The largest γ ≥ 0 with a_i + 2γ b_i + γ² c ≤ bound for every i, given a_i ≤ bound.

    A distance ‖u − g + γp‖² is such a quadratic, so γ is its positive root, computed without cancellation.
    0 if c = 0 or bound = 0.

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


class Line:
    """The points g − γ·p, g the mean of k honest updates u_i and p a perturbation of it.

    Args:
        updates: the honest updates that the attacker knows.
        perturbation: p: "unit" is g/‖g‖, "std" the standard deviation per coordinate, "sign" sign(g).
    """

    def __init__(self, updates: Updates, perturbation: Perturbation) -> None:
        self.updates = updates
        self.mean, std = mean_and_std(updates.matrix)
        if perturbation == "std":
            self.p = std
        elif perturbation == "sign":
            self.p = self.mean.sign()
        else:
            norm = self.mean.norm()
            self.p = self.mean / norm if norm > 0 else self.mean

    def point(self, gamma: float) -> Tensor:
        """(d,) float64 g − γ·p."""
        return self.mean - gamma * self.p

    @cached_property
    def length(self) -> Tensor:
        """‖p‖²."""
        return self.p @ self.p

    @cached_property
    def along(self) -> Tensor:
        """(k,) ⟨u_i − g, p⟩."""
        return along(self.updates, self.mean, self.p)


class FarthestStep(Attack):
    """u' = g − γ·p for every malicious client, g the mean of the known updates; subclasses choose γ.

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
        self.perturbation: Perturbation = perturbation
        self.knowledge = limit_knowledge(knowledge)

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse a single known update, for which γ would be 0."""
        require_spread(self.name, n - m if "benign_updates" in self.knowledge else m, m)

    @abstractmethod
    def step(self, line: Line, view: UpdateView) -> float:
        """The largest γ that the attack allows.

        Args:
            line: the points g − γ·p.
            view: what the attacker sees.
        """

    def craft(self, view: UpdateView) -> Tensor:
        """Send the farthest point allowed."""
        line = Line(view.reference_updates(), self.perturbation)
        return by_all(line.point(self.step(line, view)), view)
