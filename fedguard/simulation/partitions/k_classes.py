"""k classes per client."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import ParameterError
from .base import Partition, by_class, checked_labels


def k_classes(labels: ArrayLike, n: int, rng: np.random.Generator, k: int = 2) -> Partition:
    """#C = k: every client owns k random classes, and the owners of a class share its samples equally.

    Client i owns class i mod L and k − 1 others, so that no class is without an owner if n ≥ L. With fewer
    clients, nobody gets the samples of a class without owners.

    Args:
        labels: (N,) integers of L classes.
        n: clients.
        rng: the only source of randomness.
        k: classes per client, 1 … L.

    Raises:
        ParameterError: k is out of range, or the classes have too few samples for their owners.

    Source: Li et al., Federated Learning on Non-IID Data Silos: An Experimental Study, ICDE 2022,
    "quantity-based label imbalance" (#C = 1, 2, 3). The paper draws all k classes at random; in the
    authors' code the first one is fixed, as here.
    """
    members = by_class(checked_labels(labels, n))
    count = len(members)
    if not 1 <= k <= count:
        raise ParameterError(f"partition k_classes: k is {k}; with {count} classes it lies in 1 … {count}")
    owned = np.zeros((n, count), dtype=bool)
    for client in range(n):
        first = client % count
        others = np.delete(np.arange(count), first)
        owned[client, [first, *rng.choice(others, k - 1, replace=False)]] = True
    parts: list[list[np.ndarray[tuple[int], np.dtype[np.int64]]]] = [[] for _ in range(n)]
    for label, samples in enumerate(members):
        # Random order: with fewer samples than owners, it is not always the last ones who get nothing.
        owners = rng.permutation(np.flatnonzero(owned[:, label]))
        if len(owners):
            for client, piece in zip(
                owners, np.array_split(rng.permutation(samples), len(owners)), strict=True
            ):
                parts[client].append(piece)
    found = [np.sort(np.concatenate(pieces)) for pieces in parts]
    if min(map(len, found)) == 0:
        raise ParameterError(
            f"partition k_classes: {sum(len(part) == 0 for part in found)} of {n} clients got no sample, as "
            "their classes have fewer samples than owners; raise k or lower the number of clients"
        )
    return found
