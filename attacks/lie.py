"""A little is enough: shift the mean by a few standard deviations, too few to be noticed."""

from __future__ import annotations

from torch import Tensor

from fedguard.contracts.attack import Attack, Knowledge, UpdateView, limit_knowledge
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError

from ._checks import require_positive, require_spread
from ._statistics import by_all, mean_and_std


def lie_z(n: int, m: int) -> float:
    """z = Φ⁻¹((n − m − s) / (n − m)) with s = ⌊n/2 + 1⌋ − m supporters.

    s is the number of benign clients that must lie farther out than the attackers to give them a majority.
    If m > n/2, the attackers need no supporters and z would be infinite, so s = 1, which gives the largest
    finite z. The result is not positive for one attacker, or for two with an even n, and −Inf without benign
    clients.

    Args:
        n: clients of the round.
        m: malicious clients among them.
    """
    from scipy.special import ndtri  # a slow import

    benign = n - m
    return float(ndtri((benign - _supporters(n, m)) / benign)) if benign > 0 else float("-inf")


def _supporters(n: int, m: int) -> int:
    return max(1, n // 2 + 1 - m)


class LIE(Attack):
    """u'_j = μ_j − z·σ_j for every malicious client, z = Φ⁻¹((n − m − s)/(n − m)), s = ⌊n/2 + 1⌋ − m.

    μ and σ are per coordinate over the honest updates that the attacker knows; σ is the population form. n
    and m are those of the round. If the formula gives no positive z, as for a single attacker, z is 0 and μ
    is sent.

    Args:
        z: use this z instead of the formula's; above 0.
        knowledge: "full": μ and σ over all benign updates; "partial": over the attacker's own clients, as in
            the original attack.

    Source: Baruch et al., A Little Is Enough, NeurIPS 2019; Xie et al., FedREDefense, ICML 2024, App. A.2.
    """

    card = Card(
        "lie",
        "the honest mean shifted by z standard deviations",
        "Baruch et al., A Little Is Enough, NeurIPS 2019",
    )
    kind = "model"
    knowledge = frozenset({"benign_updates"})

    def __init__(self, z: float | None = None, knowledge: Knowledge = "full") -> None:
        if z is not None:
            require_positive("lie", "z", z)
        self.z = z
        self.knowledge = limit_knowledge(knowledge)

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse numbers of clients for which z would be 0."""
        require_spread(self.name, n - m if self.knowledge else m, m)
        if self.z is None and m > 0 and n - m <= 2 * _supporters(n, m):  # Φ⁻¹ is above 0 from ½ on
            raise ParameterError(
                f"lie: for {m} malicious of {n} clients the formula gives z = {lie_z(n, m):.3g}, which is "
                "no attack; set z"
            )

    def craft(self, view: UpdateView) -> Tensor:
        """The same shifted mean for every malicious client."""
        z = max(0.0, lie_z(view.num_clients, view.num_malicious)) if self.z is None else self.z
        mean, std = mean_and_std(view.reference_updates())
        return by_all(mean - z * std, view)
