"""Leave-one-out aggregates, without aggregating n times where possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..contracts.round import Round
from ..contracts.server import AggregationRule
from ..core.ties import lowest, tolerance
from ..geometry.blocks import Block, joined, narrow, ordered, wide
from .krum import Krum, Neighbors, tolerated
from .mean import Mean
from .median import Median
from .trimmed_mean import TrimmedMean

#: Bytes of means computed together; the updates are read once for all of them.
TOGETHER = 256 * 2**20


def leave_one_out(aggregator: AggregationRule, round: Round) -> Iterator[Tensor]:
    """Yield, for every client in turn, the (d,) aggregate of all others, each with weight 1.

    The mean, the median, the trimmed mean and Krum share work across clients. Every other rule, including
    subclasses of these that override ``aggregate``, is called n times.
    """
    shared = SHARED.get(type(aggregator).aggregate)
    if shared is None or not round.usable.all() or round.n - 1 < max(1, aggregator.min_clients()):
        return _one_by_one(aggregator, round)
    return shared(aggregator, round)


def shares_work(aggregator: AggregationRule) -> bool:
    """Whether this rule shares work across clients; such rules keep no state between rounds."""
    return type(aggregator).aggregate in SHARED


def _one_by_one(aggregator: AggregationRule, round: Round) -> Iterator[Tensor]:
    for i in range(round.n):
        weights = np.ones(round.n)
        weights[i] = 0
        yield aggregator(round, weights)


def _mean(rule: Mean, round: Round) -> Iterator[Tensor]:
    """Multiply the updates by n rows of coefficients; subtracting clients from the sum would lose digits."""
    others = ~np.eye(round.n, dtype=bool)
    coefficients = np.zeros((round.n, round.n))
    for row, kept in zip(coefficients, others, strict=True):
        share = rule.share(round.num_examples[kept], np.ones(round.n - 1))
        row[kept] = share / share.sum()
    count = max(1, TOGETHER // (4 * round.updates.d))
    for start in range(0, round.n, count):
        yield from round.updates.weighted_sum(coefficients[start : start + count], narrow)


def _trimmed_mean(rule: TrimmedMean, round: Round) -> Iterator[Tensor]:
    beta = (round.n - 2) // 2 if rule.num_malicious is None else rule.num_malicious
    return _middle(round, beta)


def _median(_: Median, round: Round) -> Iterator[Tensor]:
    return _middle(round, (round.n - 2) // 2)


def _middle(round: Round, beta: int) -> Iterator[Tensor]:
    """Yield the means of the middle n − 1 − 2β values of the others.

    In ascending order of all n values, positions β to n − 1 − β hold one value too many. Leaving out a client
    below this range drops the lowest value, one above it the highest, and one inside it its own.
    """
    last = round.n - 1 - beta

    def edges(block: Block) -> Block:
        values = wide(ordered(block)[beta : last + 1])
        rows = [values[0], values[1:-1].sum(0), values[-1]]
        return np.stack(rows) if isinstance(block, np.ndarray) else torch.stack(rows)

    low, inner, high = joined(round.updates.map_blocks(edges))
    for i in range(round.n):
        own = round.updates.row(i).double()
        rest = torch.where(own >= high, low, (low - own.maximum(low)) + high)  # never subtracts a huge value
        yield ((inner + rest) / (last - beta)).float()


def _krum(rule: Krum, round: Round) -> Iterator[Tensor]:
    f = tolerated(round.n - 1) if rule.num_malicious is None else rule.num_malicious
    near, slack = Neighbors(round.updates.sq_distances), tolerance(round.n, round.updates.d)
    for i in range(round.n):
        others = near.without(i)
        yield round.updates.row(int(others.left[lowest(others.scores(round.n - 1 - f - 2), slack)]))


#: ``aggregate`` method → its leave-one-out version.
SHARED: dict[Any, Callable[[Any, Round], Iterator[Tensor]]] = {
    Mean.aggregate: _mean,
    TrimmedMean.aggregate: _trimmed_mean,
    Median.aggregate: _median,
    Krum.aggregate: _krum,
}
