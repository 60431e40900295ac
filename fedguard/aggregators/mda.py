"""Minimum-diameter averaging: the mean of the n − f clients that lie closest together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ..core.ties import above, tolerance


def closest_clients(sq_distances: NDArray[np.float64], count: int) -> list[int]:
    """Positions of ``count`` clients whose largest distance from each other is least, in ascending order.

    The largest distance is one of the distances: bisection over them asks whether the clients that are left
    out can cover every larger one, a vertex cover of at most f = n − count vertices, which takes about 1.5^f
    steps instead of all subsets. Of several such sets, the one is taken that keeps clients in the order of
    their total squared distance to all others, nearest first, wherever it can.

    Args:
        sq_distances: (n, n) squared distances.
        count: how many clients are kept.
    """
    n, slack = len(sq_distances), tolerance(len(sq_distances))
    values = np.unique(sq_distances[np.triu_indices(n, 1)])
    low, high = 0, max(0, len(values) - 1)
    while low < high:
        middle = (low + high) // 2
        if _coverable(_edges(sq_distances, values[middle], slack), n - count):
            high = middle
        else:
            low = middle + 1
    edges = _edges(sq_distances, values[low] if len(values) else 0.0, slack)
    return sorted(_preferred(edges, sq_distances.sum(1), count, slack))


def _preferred(edges: list[int], total: NDArray[np.float64], count: int, slack: float) -> list[int]:
    """The clients to keep: nearest first, as long as those that are left out still cover every edge."""
    n, kept, out = len(edges), list[int](), 0
    order = sorted(range(n), key=lambda i: (float(f"{total[i]:.10e}"), i))
    for client in order:
        if len(kept) == count or out >> client & 1:
            continue
        needed = out | edges[client]  # whoever is farther from this client than the diameter leaves
        rest = [0 if needed >> i & 1 else edges[i] & ~needed for i in range(n)]
        if _coverable(rest, n - count - needed.bit_count()):
            kept.append(client)
            out = needed
        else:
            out |= 1 << client
    return kept


def _edges(sq_distances: NDArray[np.float64], limit: float, slack: float) -> list[int]:
    """Per client, the bits of the clients farther away than the limit."""
    far = above(sq_distances, limit, slack)
    return [sum(1 << int(j) for j in np.flatnonzero(row) if j != i) for i, row in enumerate(far)]


def _coverable(edges: list[int], budget: int) -> bool:
    """Whether at most ``budget`` vertices touch every edge: a vertex of most edges, or all its neighbors."""
    if budget < 0:
        return False
    degrees = [mask.bit_count() for mask in edges]
    top = max(range(len(edges)), key=degrees.__getitem__, default=0)
    if not edges or degrees[top] == 0:
        return True
    if budget == 0 or sum(degrees) // 2 > budget * degrees[top]:
        return False
    without = _removed(edges, 1 << top)
    if degrees[top] > budget or degrees[top] == 1:
        return _coverable(without, budget - 1)
    neighbors = edges[top]
    return _coverable(without, budget - 1) or _coverable(
        _removed(edges, neighbors), budget - neighbors.bit_count()
    )


def _removed(edges: list[int], gone: int) -> list[int]:
    return [0 if gone >> i & 1 else mask & ~gone for i, mask in enumerate(edges)]


class MDA(Aggregator):
    """(1 / (n − f)) Σ_{i ∈ S} u_i, S of n − f clients with the least diameter max_{i, j ∈ S} ‖u_i − u_j‖.

    Exact; see :func:`closest_clients` for the search and for several sets of the same diameter. Weights only
    decide who takes part.

    Args:
        num_malicious: f; needs n > 2f. None takes ⌊(n − 1)/2⌋, the most there can be.

    Source: El Mhamdi et al., Genuinely Distributed Byzantine Machine Learning, PODC 2020, §3; ByzFL's MDA.
    """

    card = Card(
        "mda",
        "mean of the clients that lie closest together",
        "El Mhamdi et al., Genuinely Distributed Byzantine Machine Learning, PODC 2020",
    )

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"mda: num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """2f + 1."""
        return 2 * (self.num_malicious or 0) + 1

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Select, then average."""
        f = (round.n - 1) // 2 if self.num_malicious is None else self.num_malicious
        kept = closest_clients(round.updates.sq_distances.cpu().numpy(), round.n - f)
        return round.updates.take(kept).mean.float()
