"""Partitions by name: from labels to one array of sample indices per client.

Every sample goes to at most one client and every client gets at least one. Indices are sorted. The same
generator gives the same partition. A partition may also change the inputs of each client, see
:class:`~.base.Split`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import ParameterError
from ...core.named_code import GIVEN_PREFIX, is_code
from ..parts import Parts
from .base import MAX_DRAWS, Change, Partition, Split, checked_split
from .dirichlet import dirichlet
from .flwr_datasets import flwr_partition
from .iid import iid
from .label_probability import label_probability

__all__ = [
    "CATALOGUE",
    "MAX_DRAWS",
    "Change",
    "Partition",
    "Split",
    "dirichlet",
    "iid",
    "label_probability",
    "make_partition",
    "partitions",
    "split_samples",
]

#: The partitions that come with FedGuard; the entry point ``fedguard.partitions`` offers them.
CATALOGUE = {
    "iid": "fedguard.simulation.partitions.iid:iid",
    "dirichlet": "fedguard.simulation.partitions.dirichlet:dirichlet",
    "label_probability": "fedguard.simulation.partitions.label_probability:label_probability",
    "shards": "fedguard.simulation.partitions.shards:shards",
    "k_classes": "fedguard.simulation.partitions.k_classes:k_classes",
    "similarity": "fedguard.simulation.partitions.similarity:similarity",
    "quantity": "fedguard.simulation.partitions.quantity:quantity",
    "natural": "fedguard.simulation.partitions.natural:natural",
    "feature_skew": "fedguard.simulation.partitions.feature_skew:feature_skew",
}

partitions = Parts(
    "partition", "fedguard.partitions", ("labels", "n", "rng", "groups"), {"flwr": flwr_partition}
)


def make_partition(
    name: str, labels: ArrayLike, n: int, rng: np.random.Generator, **params: Any
) -> Partition:
    """Partition by name; parameters are checked against the function's signature.

    Args:
        name: a name in :data:`partitions`, ``module:function`` or ``given:NAME``; the function gets
            ``labels``, ``n``, ``rng`` and ``groups`` (the natural client of each sample, or None) as far as
            it asks for them.
        labels: (N,) integers.
        n: the number of clients.
        rng: the only source of randomness.
        params: the partition's own parameters.

    Raises:
        ParameterError: a name or parameter is unknown or out of range, there are too few samples, or a
            client gets none.
    """
    return split_samples(name, labels, n, rng, {}, params).parts


def split_samples(
    name: str,
    labels: ArrayLike,
    n: int,
    rng: np.random.Generator,
    more: Mapping[str, Any],
    params: Mapping[str, Any],
) -> Split:
    """Like :func:`make_partition`, with how each client's inputs differ.

    Args:
        name: see :func:`make_partition`.
        labels: (N,) or (N, …).
        n: the number of clients.
        rng: the only source of randomness.
        more: what the partition is offered besides: ``groups``.
        params: the partition's own parameters.

    Raises:
        ParameterError: see :func:`make_partition`; or one's own function deals otherwise when called again.
    """
    own = np.asarray(labels).copy()  # what a partition does to it stays with it
    offers = {"groups": None, **more, "labels": own, "n": n, "rng": rng}
    ours = not (is_code(name) or name.startswith(f"{GIVEN_PREFIX}:"))
    again = None if ours else copy.deepcopy(offers)
    split = checked_split(partitions.make(name, offers, params), name, len(own), n)
    if again is not None:
        other = checked_split(partitions.make(name, again, params), name, len(own), n)
        if not all(map(np.array_equal, split.parts, other.parts)):
            raise ParameterError(
                f"partition {name} deals otherwise when it is called again with the same `rng`, so no run "
                "could be repeated; draw from `rng` alone, and keep nothing between calls"
            )
    return split
