"""The clients that the data set has by nature: its writers, speakers, hospitals."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...core.errors import ParameterError
from .base import Partition, checked_size


def natural(
    labels: ArrayLike,
    n: int,
    rng: np.random.Generator,
    groups: NDArray[np.int64] | None = None,
    fewer: Literal["sample", "merge"] = "sample",
    min_examples: int = 1,
) -> Partition:
    """Client i gets all samples of one natural client.

    If the data set has more natural clients than the federation has clients, n of them are drawn, or all of
    them are dealt to the n clients.

    Args:
        labels: (N,) or (N, …) labels of any kind.
        n: clients, at most as many as the data set has.
        rng: the only source of randomness.
        groups: (N,) the natural client of each sample; the data set says so.
        fewer: "sample" draws n natural clients; "merge" deals all of them, so that every client is one or
            several natural ones.
        min_examples: leaves out natural clients with fewer samples.

    Raises:
        ParameterError: the data set has no natural clients, or too few of them.

    Source: Caldas et al., LEAF: A Benchmark for Federated Settings, 2018 (FEMNIST by writer, Shakespeare by
    speaker; "sample" and a least number of samples are options of its scripts).
    """
    checked_size(labels, n)
    if groups is None:
        raise ParameterError(
            "partition natural: the data set does not say which client a sample comes from; use one that "
            "does (a `client` column), or another partition"
        )
    _, owner, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    samples = np.split(np.argsort(owner, kind="stable"), np.cumsum(sizes)[:-1])
    kept = np.flatnonzero(sizes >= min_examples)
    if n > len(kept):
        few = f" with at least {min_examples} samples" if len(kept) < len(sizes) else ""
        raise ParameterError(
            f"partition natural: the data set has {len(kept)} natural clients{few}; set `clients` to at most "
            f"{len(kept)}"
        )
    order = kept if len(kept) == n else rng.permutation(kept)
    teams = np.array_split(order, n) if fewer == "merge" else [order[i : i + 1] for i in range(n)]
    return [np.sort(np.concatenate([samples[i] for i in team])) for team in teams]
