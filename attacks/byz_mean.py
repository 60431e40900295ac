"""ByzMean: some attackers make the mean of all updates what the others send."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.card import Card
from fedguard.contracts.nested import AttackSpec
from fedguard.core.errors import ParameterError

from ._wrapped import Wrapped

#: SignGuard's own choice for the first group.
LIE = MappingProxyType({"name": "lie", "z": 0.5})


class ByzMean(Wrapped):
    """⌊share · m⌋ clients send g of another attack, the others ((n − m₁) g − Σ benign) / m₂: the mean is g.

    n updates are received, m of them malicious, m = m₁ + m₂, and the sum is over the benign ones. g is the
    inner attack's update of the first malicious client. What the second group sends is the same for all.

    The authors' code takes other counts in that formula, with which the mean is not g; this class follows the
    purpose. Their statistics of g include the attackers' own honest updates; here g is what the inner attack
    sends.

    Args:
        attack: g: a name, or a mapping with name and parameters; LIE with z = 0.5 if absent, as in SignGuard.
        share: the share of the first group among the malicious clients, in [0, 1); at least one client is in
            the second group.

    Raises:
        ParameterError: a parameter out of range, or an attack that cannot be built.

    Source: Xu et al., SignGuard, ICDCS 2022, by the code released with it and with LASA (byzmean_attack).
    """

    card = Card(
        "byz_mean",
        "some attackers make the mean of all updates what the others send",
        "Xu et al., SignGuard, ICDCS 2022",
    )
    knowledge = frozenset({"benign_updates"})
    exempt = MappingProxyType(
        {
            "what it overrides fits its kind": "it does what the inner attack does",
            "trial": "it has the inner attack's",
        }
    )

    def __init__(self, attack: AttackSpec | None = None, share: float = 0.5) -> None:
        if not 0 <= share < 1:
            raise ParameterError(f"byz_mean: share is {share}; use a number in [0, 1)")
        super().__init__(dict(LIE) if attack is None else attack)
        self.share = share
        self.knowledge = self.attack.knowledge | {"benign_updates"}

    def craft(self, view: UpdateView) -> Tensor:
        """Both groups' updates, the first group first."""
        aim = self.attack.craft(view)[0].double()
        m, benign = view.num_malicious, view.benign_updates.double()
        first = int(self.share * m)
        rest = ((m + len(benign) - first) * aim - benign.sum(0)) / (m - first)
        rows = [aim] * first + [rest] * (m - first)
        return torch.stack(rows).to(view.own_updates.dtype)
