"""Min-Max: no farther from any honest update than the two most distant honest updates are apart."""

from __future__ import annotations

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.card import Card

from ._gamma import FarthestStep, Line, largest_step


class MinMax(FarthestStep):
    """u' = g − γ·p with the largest γ such that max_i ‖u' − u_i‖ ≤ max_{i,j} ‖u_i − u_j‖.

    u_i are the honest updates that the attacker knows and g their mean. The paper bisects γ; each
    distance is a quadratic in γ, so the exact maximum is the smallest of the k positive roots. γ = 0 if there
    is only one update, all are equal, or p = 0.

    Args:
        perturbation: p: "unit" is g/‖g‖, "std" the standard deviation per coordinate (FedREDefense's
            choice), "sign" sign(g).
        knowledge: "full": all benign updates; "partial": those of the attacker's own clients, before the
            attack.

    Source: Shejwalkar & Houmansadr, NDSS 2021, §IV-C; Xie et al., FedREDefense, ICML 2024, App. A.2.
    """

    card = Card(
        "min_max",
        "as far from the honest mean as honest updates are from each other",
        "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021",
    )

    def step(self, line: Line, view: UpdateView) -> float:
        """Bound every distance."""
        updates = line.updates
        return largest_step(
            updates.centered_gram.diagonal(), line.along, line.length, updates.sq_distances.max()
        )
