"""Shards of the samples in the order of their labels."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import ParameterError
from .base import Partition, checked_size, sorted_by_label


def shards(labels: ArrayLike, n: int, rng: np.random.Generator, s: int = 2) -> Partition:
    """Sort by label, cut into s·n shards of (nearly) equal size, deal s random shards to each client.

    With few shards most clients have about s classes. Samples with the same label are in random order.

    Args:
        labels: (N,) classes or numbers.
        n: clients.
        rng: the only source of randomness.
        s: shards per client.

    Raises:
        ParameterError: s is below 1, or there are more shards than samples.

    Source: McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS
    2017, §3 (s = 2: 200 shards of 300 MNIST images for 100 clients).
    """
    size = checked_size(labels, n)
    if s < 1 or s * n > size:
        raise ParameterError(
            f"partition shards: s is {s}; {n} clients can share {size} samples in 1 … {size // n} shards each"
        )
    ordered = sorted_by_label(labels, rng.permutation(size))
    pieces = np.array_split(ordered, s * n)
    dealt = rng.permutation(s * n).reshape(n, s)
    return [np.sort(np.concatenate([pieces[i] for i in row])) for row in dealt]
