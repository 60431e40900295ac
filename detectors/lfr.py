"""LFR: reject whoever makes the global model's loss worse."""

from __future__ import annotations

from fedguard.contracts.card import Card

from ._impact import Impact


class LFR(Impact):
    """L_A − L_B: the cross-entropy on validation data with everybody, minus that without client i.

    A and B are global models made by the aggregation rule in use (the guard's; the mean if there is no
    guard), on the server's validation data and in eval mode. The c clients with the largest impact are
    suspects; of equal impacts, the client that comes later by id. A loss that is NaN counts as +Inf, and
    Inf − Inf as 0: whom it does not help to leave out is not to blame more than others.

    Args:
        num_malicious: c; None assumes the most that a majority of honest clients allows, ⌊(n − 1)/2⌋.

    Raises:
        TooFewClientsError: the aggregation rule is not defined for n − 1 clients.

    Source: Fang et al., USENIX Security 2020, §5.
    """

    card = Card(
        "lfr",
        "what the client adds to the validation loss",
        "Fang et al., Local model poisoning attacks, USENIX Security 2020",
    )
    measure, called = 1, "loss"
