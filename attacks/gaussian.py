"""The Gaussian attack: random updates with the distribution of the honest ones."""

from __future__ import annotations

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, Knowledge, UpdateView, limit_knowledge
from fedguard.contracts.card import Card

from ._checks import require_spread
from ._statistics import mean_and_std


class Gaussian(Attack):
    """u'_ij ~ N(μ_j, σ_j²) with μ_j, σ_j of coordinate j over the before-attack updates.

    Draws are independent for every coordinate and malicious client. Fang et al. fit local *models*, which
    differ from updates by w_{t−1}; this shifts μ only, so both are the same attack. σ is the population
    form, the maximum-likelihood fit; the paper does not name an estimator.

    Args:
        knowledge: "full" fits the updates of all clients, as in the paper; "partial" only those of the
            attacker's own clients.

    Source: Fang et al., USENIX Security 2020, §4.1 ("Gaussian attack").
    """

    card = Card(
        "gaussian",
        "random updates from a normal fitted to the honest ones",
        "Fang et al., USENIX Security 2020",
    )
    kind = "model"
    knowledge = frozenset({"benign_updates"})

    def __init__(self, knowledge: Knowledge = "full") -> None:
        self.knowledge = limit_knowledge(knowledge)

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse a fit to one update."""
        require_spread(self.name, n if self.knowledge else m, m)

    def craft(self, view: UpdateView) -> Tensor:
        """Draw one update per malicious client."""
        mean, std = mean_and_std(view.before_attack())
        crafted = torch.empty_like(view.own_updates)
        for row in crafted:  # one at a time: (m, d) float64 is large
            noise = torch.randn(len(row), generator=view.generator, dtype=torch.float64)
            row.copy_(mean + std * noise.to(mean.device))
        return crafted
