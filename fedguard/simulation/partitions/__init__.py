"""Partitions by name: from labels to one array of sample indices per client.

Every sample goes to at most one client and every client gets at least one. Indices are sorted. The same
generator gives the same partition.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..parts import Parts
from .base import Partition
from .dirichlet import MAX_DRAWS, dirichlet
from .iid import iid
from .label_probability import label_probability

__all__ = [
    "CATALOGUE",
    "MAX_DRAWS",
    "Partition",
    "dirichlet",
    "iid",
    "label_probability",
    "make_partition",
    "partitions",
]

#: The partitions that come with FedGuard; the entry point ``fedguard.partitions`` offers them.
CATALOGUE = {
    "iid": "fedguard.simulation.partitions.iid:iid",
    "dirichlet": "fedguard.simulation.partitions.dirichlet:dirichlet",
    "label_probability": "fedguard.simulation.partitions.label_probability:label_probability",
}

partitions = Parts("partition", "fedguard.partitions", ("labels", "n", "rng"))


def make_partition(
    name: str, labels: ArrayLike, n: int, rng: np.random.Generator, **params: Any
) -> Partition:
    """Partition by name; parameters are checked against the function's signature.

    Args:
        name: a name in :data:`partitions`, ``module:function`` or ``given:NAME``; the function gets
            ``labels``, ``n`` and ``rng`` as far as it asks for them.
        labels: (N,) integers.
        n: the number of clients.
        rng: the only source of randomness.
        params: the partition's own parameters.

    Raises:
        ParameterError: a name or parameter is unknown or out of range, or there are too few samples.
    """
    made: Partition = partitions.make(name, {"labels": labels, "n": n, "rng": rng}, params)
    return made
