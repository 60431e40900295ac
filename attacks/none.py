"""No attack: the baseline for all attacks."""

from __future__ import annotations

from fedguard.contracts.attack import Attack
from fedguard.contracts.card import Card


class NoAttack(Attack):
    """u'_i = u_i: the "malicious" clients train honestly on clean data.

    Source: the "no attack" rows of every paper.
    """

    card = Card("none", "no attack at all", "FedGuard")
    kind = "none"
    goal = "none"
