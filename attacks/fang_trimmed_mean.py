"""Fang et al.'s attack on the trimmed mean, which also affects the median and other rules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, Knowledge, UpdateView, limit_knowledge
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.geometry.updates import Updates

from ._checks import require_spread
from ._statistics import mean_and_std


class FangTrimmedMean(Attack):
    """Per coordinate, models just beyond all benign ones, against the direction that training takes.

    s_j = 1 if coordinate j of the global model would grow without the attack, otherwise −1 (also if it would
    not change, as in the paper's estimate). Each malicious client draws w'_j uniformly from

    - full: s_j = −1: [w_max, b·w_max] if w_max > 0, else [w_max, w_max/b];
      s_j = 1: [w_min/b, w_min] if w_min > 0, else [b·w_min, w_min];
    - partial: s_j = −1: [μ + 3σ, μ + 4σ]; s_j = 1: [μ − 4σ, μ − 3σ];

    and sends w' − w_{t−1}. All w are *models*, w_{t−1} + u_i, since their sign decides the branch. w_max
    and w_min are over the benign clients; μ and σ (population form) over the attacker's own. The model
    "without the attack" is, with full knowledge, the trimmed mean with β = m over all before-attack updates
    (their mean if n ≤ 2m), and with partial knowledge the mean of the attacker's own clients.

    The goal "deviation" has no direction: it takes the side that moves the aggregate farther from its value
    without the attack, the upper one in a tie. Values beyond all benign ones are trimmed, so only their side
    matters; if they are not (n ≤ 2m), w_max and w_min represent them.

    Args:
        knowledge: "full" or "partial".
        b: the factor that bounds the interval, above 1; 2 in the paper.
        goal: "directed", or "deviation" (Appendix B), which the paper has for full knowledge only.
        direction: what gives the model "without the attack" with full knowledge: the "rule" under attack, as
            in Equation 1, or the "mean" of all before-attack updates, which moves the model less per round
            but costs more accuracy if clients differ much. Partial knowledge always uses its own mean.

    Raises:
        ParameterError: b ≤ 1, which leaves the interval empty, or deviation with partial knowledge.

    Source: Fang et al., USENIX Security 2020, §3.3 and Appendix B.
    """

    card = Card(
        "fang_trimmed_mean",
        "models just beyond all benign ones, against the direction of training",
        "Fang et al., Local Model Poisoning Attacks, USENIX Security 2020",
    )
    kind = "model"
    knowledge = frozenset({"benign_updates"})

    def __init__(
        self,
        knowledge: Knowledge = "full",
        b: float = 2.0,
        goal: Literal["directed", "deviation"] = "directed",
        direction: Literal["rule", "mean"] = "rule",
    ) -> None:
        self.knowledge = limit_knowledge(knowledge)
        if not 1 < b < float("inf"):
            raise ParameterError(f"{self.name}: b is {b}; use a finite number above 1")
        if goal not in ("directed", "deviation"):
            raise ParameterError(f"{self.name}: goal is {goal!r}; use 'directed' or 'deviation'")
        if goal == "deviation" and not self.knowledge:
            raise ParameterError(
                f"{self.name}: goal is 'deviation', which needs the benign models; use knowledge 'full'"
            )
        if direction not in ("rule", "mean"):
            raise ParameterError(f"{self.name}: direction is {direction!r}; use 'rule' or 'mean'")
        self.b = b
        self.aim = goal
        self.direction = direction

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse partial knowledge of a single client, for which σ would be 0."""
        if not self.knowledge:
            require_spread(self.name, m, m)

    def aggregate(self, ordered: Tensor, m: int) -> Tensor:
        """The rule under attack, from (n, d) values in ascending order per column: (d,)."""
        return (ordered[m : len(ordered) - m] if len(ordered) > 2 * m else ordered).mean(0)

    def craft(self, view: UpdateView) -> Tensor:
        """Draw one model per malicious client and send its difference from the global model."""
        start = view.global_params.double()
        low, high = self._full(view, start) if self.knowledge else _partial(view, start)
        crafted = torch.empty_like(view.own_updates)
        for row in crafted:  # one at a time: (m, d) float64 is large
            share = torch.rand(len(row), generator=view.generator, dtype=torch.float64).to(low.device)
            row.copy_(low + share * (high - low) - start)
        return crafted

    def _full(self, view: UpdateView, start: Tensor) -> tuple[Tensor, Tensor]:
        below, top, bottom = (torch.cat(parts) for parts in zip(*self._extremes(view), strict=True))
        top, bottom = start + top, start + bottom
        beyond_top = torch.where(top > 0, self.b * top, top / self.b)
        beyond_bottom = torch.where(bottom > 0, bottom / self.b, self.b * bottom)
        return torch.where(below, beyond_bottom, top), torch.where(below, bottom, beyond_top)

    def _extremes(self, view: UpdateView) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Block by block: whether to go below all benign updates, their maximum and their minimum."""
        m, before_attack = view.num_malicious, view.before_attack()
        own = len(before_attack) - len(view.benign_updates)
        for block in Updates(before_attack).blocks():
            benign = block[own:] if len(block) > own else block
            before = self.aggregate(block.sort(dim=0).values, m)
            top, bottom = benign.amax(0), benign.amin(0)
            if self.aim == "directed":
                below = (block.mean(0) if self.direction == "mean" else before) > 0
            else:
                benign = benign.sort(dim=0).values
                up = self.aggregate(torch.cat([benign, top.expand(m, -1)]), m) - before
                down = self.aggregate(torch.cat([bottom.expand(m, -1), benign]), m) - before
                below = down.abs() > up.abs()
            yield below, top, bottom


def _partial(view: UpdateView, start: Tensor) -> tuple[Tensor, Tensor]:
    change, std = mean_and_std(view.reference_updates())
    mean = start + change
    grows = change > 0
    low = torch.where(grows, mean - 4 * std, mean + 3 * std)
    return low, low + std
