"""LFR: reject the clients whose updates raise the global model's loss most."""

from __future__ import annotations

from fedguard.contracts.card import Card

from ._impact import Impact


class LFR(Impact):
    """s_i = L_A − L_B, the validation cross-entropy with all clients minus the one without client i.

    A and B are the global models that the aggregation rule in use gives (the guard's, or the mean without a
    guard), evaluated on the server's validation data in eval mode. The c clients with the largest impacts
    are suspects; among equal impacts, those later by id. A loss of NaN counts as +Inf, and Inf − Inf as 0,
    since removing such a client does not help.

    Args:
        num_malicious: c; None assumes ⌊(n − 1)/2⌋, the most that an honest majority allows.

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
