"""ERR: reject whoever makes the global model's error rate worse."""

from __future__ import annotations

from fedguard.contracts.card import Card

from ._impact import Impact


class ERR(Impact):
    """E_A − E_B: the error rate on validation data with everybody, minus that without client i.

    A and B are global models made by the aggregation rule in use (the guard's; the mean if there is no
    guard), on the server's validation data and in eval mode. The c clients with the largest impact are
    suspects. Impacts are multiples of one over the number of samples, so that ties are common: of equal
    impacts, the client that comes later by id is removed.

    Args:
        num_malicious: c; None assumes the most that a majority of honest clients allows, ⌊(n − 1)/2⌋.

    Raises:
        TooFewClientsError: the aggregation rule is not defined for n − 1 clients.

    Source: Fang et al., USENIX Security 2020, §5.
    """

    card = Card(
        "err",
        "what the client adds to the validation error rate",
        "Fang et al., Local model poisoning attacks, USENIX Security 2020",
    )
    measure, called = 0, "error rate"
