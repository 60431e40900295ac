"""Min-Sum: no farther from the honest updates, in sum, than the most distant honest update."""

from __future__ import annotations

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.card import Card

from ._gamma import FarthestStep, Line, largest_step


class MinSum(FarthestStep):
    """u' = g − γ·p with the largest γ such that Σ_i ‖u' − u_i‖² ≤ max_i Σ_j ‖u_i − u_j‖².

    u_i are the honest updates that the attacker knows and g their mean. The paper bisects γ; the sum is
    a quadratic in γ, so the exact maximum is its positive root. γ = 0 if there is only one update, all are
    equal, or p = 0.

    Args:
        perturbation: p: "unit" is g/‖g‖, "std" the standard deviation per coordinate (FedREDefense's
            choice), "sign" sign(g).
        knowledge: "full": all benign updates; "partial": those of the attacker's own clients, before the
            attack.

    Source: Shejwalkar & Houmansadr, NDSS 2021, §IV-C; Xie et al., FedREDefense, ICML 2024, App. A.2.
    """

    card = Card(
        "min_sum",
        "as far from all honest updates together as an honest update may be",
        "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021",
    )

    def step(self, line: Line, view: UpdateView) -> float:
        """Bound the sum of the distances."""
        total = line.updates.centered_gram.diagonal().sum()
        bound = line.updates.sq_distances.sum(1).max()
        return largest_step(total[None], line.along.sum()[None], line.updates.n * line.length, bound)
