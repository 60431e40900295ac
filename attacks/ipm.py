"""Inner product manipulation: send the reversed honest mean."""

from __future__ import annotations

from torch import Tensor

from fedguard.contracts.attack import Attack, Knowledge, UpdateView, limit_knowledge
from fedguard.contracts.card import Card

from ._checks import require_positive
from ._statistics import by_all, mean


class IPM(Attack):
    """u' = −ε · g for every malicious client, g the mean of the honest updates that the attacker knows.

    The goal is an aggregate with a negative inner product with g. The mean of n updates needs ε > (n − m)/m.
    Rules that reject distant updates (Krum, the median) are vulnerable to a small ε, which puts u' near the
    mean.

    Args:
        epsilon: ε. The paper varies it with the rule under attack; 0.1 is the value in Karimireddy et
            al., ICLR 2022.
        knowledge: "full": g is the mean of all benign updates, as in the paper; "partial": of the attacker's
            own clients.

    Source: Xie et al., Fall of Empires, UAI 2019 (PMLR 115, 2020).
    """

    card = Card(
        "ipm",
        "the honest mean times a negative number",
        "Xie et al., Fall of Empires, UAI 2019",
    )
    kind = "model"
    knowledge = frozenset({"benign_updates"})

    def __init__(self, epsilon: float = 0.1, knowledge: Knowledge = "full") -> None:
        require_positive("ipm", "epsilon", epsilon)
        self.epsilon = epsilon
        self.knowledge = limit_knowledge(knowledge)

    def craft(self, view: UpdateView) -> Tensor:
        """The same scaled mean for every malicious client."""
        return by_all(-self.epsilon * mean(view.reference_updates()), view)
