"""A share of each client's data is like everybody's, the rest its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import ParameterError
from .base import Partition, checked_size, sorted_by_label


def similarity(labels: ArrayLike, n: int, rng: np.random.Generator, gamma: float = 0.1) -> Partition:
    """γN random samples are dealt evenly; the other (1 − γ)N are sorted by label and cut into n pieces.

    γ = 1 is IID; with γ = 0 every client has a piece of the sorted data.

    Args:
        labels: (N,) classes or numbers.
        n: clients.
        rng: the only source of randomness.
        gamma: γ in [0, 1]: the similarity of the clients.

    Raises:
        ParameterError: γ is out of range, or there are too few samples.

    Source: Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML 2020,
    §7 (γ = 0, 0.1, 1).
    """
    size = checked_size(labels, n)
    if not 0 <= gamma <= 1:
        raise ParameterError(f"partition similarity: gamma is {gamma}; use a share in 0 … 1, say 0.1")
    order = rng.permutation(size)
    alike = round(gamma * size)
    even = np.array_split(order[:alike], n)
    # From the last client on, as the longer pieces come first: so everybody gets something.
    own = np.array_split(sorted_by_label(labels, order[alike:]), n)[::-1]
    clients = rng.permutation(n)  # else neighbors in number were neighbors in labels
    return [np.sort(np.concatenate([even[i], own[i]])) for i in clients]
