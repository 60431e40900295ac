"""The adaptive attack of SignGuard's authors: as far as the whole guard accepts the crafted updates."""

from __future__ import annotations

from types import MappingProxyType

from fedguard.contracts.attack import Knowledge, UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import TooFewClientsError

from ._agr import TailoredStep, Value
from ._gamma import Line, Perturbation


class GuardTailored(TailoredStep):
    """u' = g − γ·p for all malicious clients, with the largest γ for which the server's guard suspects none.

    g is the mean of the honest updates that the attacker knows. It queries its own copy of the guard
    (detectors with their history, policy) with the round as the server would receive it; with SignGuard as
    the guard, this is the adaptive attack that its authors test it with. They search by halving a step from
    γ = 2 ("std"), 0.5 ("sign") or 5 ‖g‖ ("unit"); here the search is that of agr_tailored, which has no
    such scale. If no γ is accepted, or the guard cannot judge so few clients, u' = g.

    A guard that draws at random (SignGuard samples coordinates) draws in the attacker's copy what it draws in
    the round itself: the attacker is assumed to know.

    Args:
        perturbation: p: "std" is the standard deviation per coordinate, "sign" sign(g), "unit" g/‖g‖.
        knowledge: "full" queries rounds with all benign updates; "partial" rounds of the attacker's own
            clients only.
        reach: the search for γ goes from γ_0/reach to γ_0·reach, see agr_tailored.
        tolerance: relative to γ.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xu et al., SignGuard, ICDCS 2022; the attack, from the authors' repository (JianXu95/SignGuard,
    adaptive_attack.py).
    """

    card = Card(
        "guard_tailored",
        "as far from the honest mean as the whole guard allows",
        "Xu et al., SignGuard, ICDCS 2022",
    )
    knowledge = frozenset({"benign_updates", "defense"})
    exempt = MappingProxyType({"what is there is used": "g is the mean of the updates that are known"})

    def __init__(
        self,
        perturbation: Perturbation = "std",
        knowledge: Knowledge = "full",
        reach: float = 100.0,
        tolerance: float = 0.01,
    ) -> None:
        super().__init__(perturbation, knowledge, reach, tolerance)
        self.knowledge |= {"defense"}

    def value(self, line: Line, view: UpdateView) -> Value:
        """γ if the guard suspects none of the copies, otherwise 0."""

        def value(gamma: float) -> float:
            crafted = line.point(gamma).to(view.own_updates.dtype)
            try:
                caught = view.suspected(crafted.repeat(view.num_malicious, 1))
            except TooFewClientsError:
                return 0.0
            return 0.0 if caught.any() else gamma

        return value
