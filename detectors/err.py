"""ERR: reject the clients whose updates raise the global model's error rate most."""

from __future__ import annotations

from fedguard.contracts.card import Card

from ._impact import Impact


class ERR(Impact):
    """s_i = E_A − E_B, the validation error rate with all clients minus the one without client i.

    A and B are the global models that the aggregation rule in use gives (the guard's, or the mean without a
    guard), evaluated on the server's validation data in eval mode. The c clients with the largest impacts
    are suspects. Impacts are multiples of 1/(number of samples), so ties are common; among equal impacts,
    the client later by id is removed.

    Args:
        num_malicious: c; None assumes ⌊(n − 1)/2⌋, the most that an honest majority allows.

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
    tasks = frozenset({"classification", "multilabel"})  # elsewhere nothing is right or wrong
