"""Partitions by name: from labels to one array of sample indices per client.

Every sample goes to at most one client and every client gets at least one. Indices are sorted. The same
generator gives the same partition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ...core.errors import ParameterError
from ...core.params import check_params, nearest
from .base import Partition
from .dirichlet import MAX_DRAWS, dirichlet
from .iid import iid
from .label_probability import label_probability

__all__ = [
    "MAX_DRAWS",
    "PARTITIONS",
    "Partition",
    "dirichlet",
    "iid",
    "label_probability",
    "make_partition",
]

PARTITIONS: dict[str, Callable[..., Partition]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "label_probability": label_probability,
}


def make_partition(
    name: str, labels: ArrayLike, n: int, rng: np.random.Generator, **params: Any
) -> Partition:
    """Partition by name; parameters are checked against the function's signature.

    Raises:
        ParameterError: a name or parameter is unknown or out of range, or there are too few samples.
    """
    if name not in PARTITIONS:
        raise ParameterError(
            f"unknown partition {name!r}{nearest(name, PARTITIONS)} (known: {', '.join(PARTITIONS)})"
        )
    function = PARTITIONS[name]
    return function(labels, n, rng, **check_params(function, params, f"partition {name}", skip=3))
