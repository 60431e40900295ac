"""A uniformly random partition."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from .base import Partition, checked_size


def iid(labels: ArrayLike, n: int, rng: np.random.Generator) -> Partition:
    """A random partition into parts whose sizes differ by at most one.

    Args:
        labels: (N,) or (N, …) labels of any kind.
        n: clients.
        rng: the only source of randomness.

    Raises:
        ParameterError: there are fewer samples than clients.
    """
    order = rng.permutation(checked_size(labels, n))
    return [np.sort(part) for part in np.array_split(order, n)]
