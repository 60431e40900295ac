"""Class shares of the clients drawn from a Dirichlet distribution."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...core.errors import ParameterError
from .base import MAX_DRAWS, Partition, by_class, checked_labels, cut_points


def dirichlet(
    labels: ArrayLike,
    n: int,
    rng: np.random.Generator,
    beta: float = 0.1,
    equal_sizes: bool = False,
    min_examples: int = 10,
) -> Partition:
    """q_c ~ Dir(β·1_n): client i gets the share q_ci of every class c.

    The whole partition is drawn again until every client has ``min_examples`` samples.

    Args:
        labels: (N,) integers.
        n: clients.
        rng: the only source of randomness.
        beta: β; the smaller it is, the more clients differ.
        equal_sizes: give every client ⌊N/n⌋ samples instead, with class shares ~ Dir(β·1_L). If a class runs
            out, the client gets more of its other classes.
        min_examples: the least number of samples per client.

    Raises:
        ParameterError: out of range, or none of 1000 draws gives every client enough samples.

    Source: Xie et al., FedREDefense, ICML 2024, §5.1 (β = 0.1); the paper does not say how it avoids
    clients with very few samples; ``min_examples`` does so here.
    """
    y = checked_labels(labels, n)
    if not (beta > 0 and math.isfinite(beta)):
        raise ParameterError(f"partition dirichlet: beta is {beta}; use a positive number, say 0.1")
    if min_examples < 1 or min_examples * n > len(y):
        raise ParameterError(
            f"partition dirichlet: min_examples is {min_examples}; with {len(y)} samples for {n} clients "
            f"it lies in 1 … {len(y) // n}. Lower it, or the number of clients"
        )
    if equal_sizes:
        return _dirichlet_equal(y, n, rng, beta)
    members = by_class(y)
    for _ in range(MAX_DRAWS):
        cuts = [cut_points(len(samples), rng.dirichlet(np.full(n, beta))) for samples in members]
        if _sizes(members, cuts).min() >= min_examples:
            dealt = [np.split(rng.permutation(m), cut) for m, cut in zip(members, cuts, strict=True)]
            return [np.sort(np.concatenate(parts)) for parts in zip(*dealt, strict=True)]
    raise ParameterError(
        f"partition dirichlet: in {MAX_DRAWS} draws never had all {n} clients at least {min_examples} of "
        f"the {len(y)} samples (beta {beta:g}); raise beta, lower min_examples or the number of clients, "
        "or set equal_sizes"
    )


def _by_class(y: NDArray[np.int64]) -> Partition:
    """The samples of each class."""
    return [np.flatnonzero(y == label) for label in np.unique(y)]


def _sizes(members: Partition, cuts: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """(n,) the number of samples of every client if the classes are cut at these points."""
    parts = [np.diff(cut, prepend=0, append=len(m)) for m, cut in zip(members, cuts, strict=True)]
    sizes: NDArray[np.int64] = np.sum(parts, axis=0)
    return sizes


def _dirichlet_equal(y: NDArray[np.int64], n: int, rng: np.random.Generator, beta: float) -> Partition:
    pools = [rng.permutation(samples) for samples in by_class(y)]
    left = np.array([len(pool) for pool in pools])
    parts: Partition = [np.empty(0, dtype=np.int64)] * n
    for client in rng.permutation(n):  # late clients have less choice, so the order is random
        share = rng.dirichlet(np.full(len(pools), beta))
        counts = _choose(left, share, len(y) // n, rng)
        parts[client] = np.sort(
            np.concatenate([pool[k - c : k] for pool, k, c in zip(pools, left, counts, strict=True)])
        )
        left -= counts
    return parts


def _choose(
    left: NDArray[np.int64], share: NDArray[np.float64], size: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How many samples of each class, at most ``left``, add up to ``size``."""
    counts = np.zeros_like(left)
    while counts.sum() < size:
        weight = np.where(counts < left, share, 0.0)
        if weight.sum() == 0:  # the client's preferred classes are exhausted: use the others
            weight = (left - counts).astype(float)
        wanted = rng.multinomial(size - counts.sum(), weight / weight.sum())
        counts = np.minimum(counts + wanted, left)
    return counts
