"""Groups of clients that prefer one class each."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import ParameterError
from .base import Partition, checked_labels


def label_probability(labels: ArrayLike, n: int, rng: np.random.Generator, p: float = 0.5) -> Partition:
    """P(group l | class l) = p; the other groups share 1 − p equally.

    A sample of class l goes to client group l with probability p, else to one of the other groups. There
    are as many groups as classes, with clients assigned at random to groups of (nearly) equal size. The
    client within the group is drawn uniformly. p = 1/L is IID.

    Args:
        labels: (N,) integers of L classes.
        n: clients, at least L.
        rng: the only source of randomness.
        p: degree of non-IID, in (0, 1].

    Raises:
        ParameterError: out of range, or a client is left without samples.

    Source: Fang et al., USENIX Security 2020, §4.1 (p = 0.5). The paper does not specify the choice of
    the client within the group.
    """
    y = checked_labels(labels, n)
    classes, group = np.unique(y, return_inverse=True)
    count = len(classes)
    if not 0 < p <= 1:
        raise ParameterError(f"partition label_probability: p is {p}; use a probability in (0, 1], say 0.5")
    if n < count:
        raise ParameterError(
            f"partition label_probability: {n} clients are too few for {count} groups, one per class; "
            f"use at least {count} clients"
        )
    if count > 1:
        shift = rng.integers(1, count, size=len(y))
        group = np.where(rng.random(len(y)) < p, group, (group + shift) % count)
    clients = np.array_split(rng.permutation(n), count)
    sizes = np.array([len(members) for members in clients])
    first = np.cumsum(sizes) - sizes
    owner = np.concatenate(clients)[first[group] + rng.integers(sizes[group])]
    parts = [np.flatnonzero(owner == i) for i in range(n)]
    if min(map(len, parts)) == 0:
        raise ParameterError(
            f"partition label_probability: {sum(len(part) == 0 for part in parts)} of {n} clients got no "
            f"sample (p {p:g}, {len(y)} samples); lower p or the number of clients"
        )
    return parts
