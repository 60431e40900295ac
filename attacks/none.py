"""No attack: the baseline that every other attack is compared with."""

from __future__ import annotations

from fedguard.contracts.attack import Attack
from fedguard.contracts.card import Card


class NoAttack(Attack):
    """The "malicious" clients train honestly on clean data and send u_i as it is.

    Source: the "no attack" rows of every paper; nothing to choose.
    """

    card = Card("none", "nobody attacks", "FedGuard")
    kind = "none"
    goal = "none"
