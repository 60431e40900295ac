"""Bulyan: select by repeated Krum, then average around the median."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError, TooFewClientsError
from ..core.ties import above, lowest, tolerance
from ..geometry.blocks import Block, joined, ordered, wide
from .krum import Neighbors


def bulyan_selection(sq_distances: Tensor, num_malicious: int) -> list[int]:
    """Positions of the θ = n − 2f clients that Krum picks one by one, re-scored on those remaining.

    Krum sums over m − f − 2 neighbors among the m remaining clients. For f ≤ 1 the last picks would have no
    neighbor; the nearest one is then used. Ties are broken by the sum of the squared distances to all n.

    Args:
        sq_distances: (n, n) squared distances.
        num_malicious: f.

    Source: El Mhamdi et al., ICML 2018, §4.
    """
    n = len(sq_distances)
    total = sq_distances.sum(1).cpu().numpy()
    near, slack = Neighbors(sq_distances), tolerance(n)
    chosen: list[int] = []
    while len(chosen) < n - 2 * num_malicious:
        left = len(near.left)
        scores = near.scores(min(max(1, left - num_malicious - 2), left - 1))
        ties = np.flatnonzero(~above(scores, scores.min(), slack))
        place = int(ties[lowest(total[near.left[ties]], slack)])
        chosen.append(int(near.left[place]))
        near = near.without(place)
    return chosen


class Bulyan(Aggregator):
    """Per coordinate, the mean of the β = θ − 2f values closest to the median of θ = n − 2f selected clients.

    Selection is repeated Krum (see :func:`bulyan_selection`). If values on both sides are equally far from
    the median, the lower ones are taken. Weights only decide who takes part.

    Args:
        num_malicious: f; needs n ≥ 4f + 3. None assumes the largest possible f, ⌊(n − 3)/4⌋.

    Source: El Mhamdi et al., ICML 2018, §4 and Algorithm 2.
    """

    card = Card(
        "bulyan",
        "repeated Krum, then the mean around the median",
        "El Mhamdi et al., The Hidden Vulnerability of Distributed Learning, ICML 2018",
    )

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"bulyan: num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """4f + 3."""
        return 4 * (self.num_malicious or 0) + 3

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Select, then average around the median."""
        f = (round.n - 3) // 4 if self.num_malicious is None else self.num_malicious
        if round.n < 4 * f + 3:
            raise TooFewClientsError(f"bulyan needs at least {4 * f + 3} clients for f = {f}")
        chosen = bulyan_selection(round.updates.sq_distances, f)
        beta = len(chosen) - 2 * f
        means = round.updates.take(chosen).map_blocks(lambda block: around_median(wide(ordered(block)), beta))
        return joined(means).float()


def around_median(values: Block, count: int) -> Block:
    """(width,) per ascending column, the mean of the ``count`` values closest to the median."""
    larger: Callable[..., Block]
    along: Callable[..., Block]
    steps: Block
    if isinstance(values, np.ndarray):
        larger, along, steps = np.maximum, np.take_along_axis, np.arange(count)
    else:
        larger, along, steps = torch.maximum, torch.take_along_dim, torch.arange(count, device=values.device)
    theta = len(values)
    median = (values[(theta - 1) // 2] + values[theta // 2]) / 2
    # The closest values are neighbors and include a middle one, so only windows with one are candidates.
    first, last = max(0, (theta - 1) // 2 - count + 1), min(theta // 2, theta - count)
    reach = larger(median - values[first : last + 1], values[first + count - 1 : last + count] - median)
    best: Block = reach.argmin(0)
    equal: Block = reach == along(reach, best[None, :], 0)
    columns = equal.sum(0) > 1
    if bool(columns.any()):
        best[columns] = _least_total(values[first:, columns], median[columns], count, equal[:, columns])
    return along(values, first + best[None, :] + steps[:, None], 0).mean(0)


def _least_total(values: Block, median: Block, count: int, equal: Block) -> Block:
    """(width,) the window, among those of equal reach, with the least total distance to the median.

    The other windows contain a value that is farther away than one they leave out.
    """
    distances = abs(values - median)
    stack: Callable[..., Block] = np.stack if isinstance(values, np.ndarray) else torch.stack
    totals = stack([distances[window : window + count].sum(0) for window in range(len(equal))])
    totals[~equal] = math.inf
    return totals.argmin(0)
