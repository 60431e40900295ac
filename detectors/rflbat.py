"""RFLBAT: look for dense groups among the updates' first principal components."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.contracts.server import Server
from fedguard.core.errors import ParameterError
from fedguard.core.ties import above, lowest, tolerance
from fedguard.geometry.clusters import gap_statistic, k_means
from fedguard.geometry.eigen import top_eigenpairs
from fedguard.geometry.tables import ROWS

from ._clusters import around_cut
from ._ranking import by_id

#: Reference sets of the gap statistic, and the most clusters considered.
REFERENCES, MOST = 5, 9

#: Decimals to which principal components are rounded.
DIGITS = 12


class RFLBAT(Detector):
    """Distance filter on principal components, clustering, least similar cluster, second distance filter.

    The updates are projected on their first principal components. (1) Clients whose sum of distances
    to the others exceeds ε₁ times the median are removed. (2) The rest is clustered by k-means, with k from
    the gap statistic. (3) Poisoned updates resemble each other, so the cluster whose members are least
    similar is kept: similarity is the median over members of the mean cosine to the others, and 1 for a
    single member. (4) Members whose sum of distances exceeds ε₂ times the median are removed. All removed
    clients are suspects; their score is above 1 and grows with the sum of distances.

    Args:
        components: principal components; 2 in the paper.
        eps1: ε₁, of the first filter; 10.
        eps2: ε₂, of the second; 4.

    Raises:
        ParameterError: a parameter out of range.

    Source: Wang et al., RFLBAT, 2022 (arXiv 2201.03772), Algorithm 1.
    """

    card = Card(
        "rflbat",
        "clusters of the updates' principal components",
        "Wang et al., RFLBAT, arXiv 2022",
    )

    def __init__(self, components: int = 2, eps1: float = 10.0, eps2: float = 4.0) -> None:
        if components < 1:
            raise ParameterError(f"rflbat: components is {components}; use at least 1")
        for name, value in (("eps1", eps1), ("eps2", eps2)):
            if not 0 < value < float("inf"):
                raise ParameterError(f"rflbat: {name} is {value}; use a finite number above 0")
        self.components = components
        self.eps1 = eps1
        self.eps2 = eps2

    def score(self, round: Round) -> Scores:
        """Filter, cluster, filter."""
        points = principal_components(round.updates.centered_gram, self.components)
        kept = self._near(points, np.ones(round.n, dtype=bool), self.eps1)
        kept = self._least_alike(round, points, kept)
        kept = self._near(points, kept, self.eps2)
        spread = _sums(points)
        return Scores(
            around_cut(spread, ~kept),
            ~kept,
            "outside the group of updates that differ from each other as honest ones do",
            info={"accepted": float(kept.sum())},
        )

    def _near(self, points: NDArray[np.float64], members: NDArray[np.bool_], eps: float) -> NDArray[np.bool_]:
        sums, slack = _sums(points[members]), tolerance(len(points), self.components, DIGITS)
        near = members.copy()
        near[members] = ~above(sums, eps * np.median(sums), slack) if len(sums) else False
        return near

    def _least_alike(
        self, round: Round, points: NDArray[np.float64], members: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        positions = [i for i in by_id(round.client_ids) if members[i]]
        some = points[positions]
        draw = (round.server or Server()).generator("rflbat", round.index)
        k = gap_statistic(some, min(MOST, len(some)), REFERENCES, draw) if len(some) > 1 else 1
        if k == 1:
            return members
        labels = k_means(some, k).labels_
        cosines = round.updates.cosines.cpu().numpy()
        groups = sorted((np.array(positions)[labels == c] for c in range(k)), key=lambda group: list(group))
        alike = np.array([_similarity(cosines, group) for group in groups])
        best = groups[lowest(alike, tolerance(round.n, round.updates.d), scale=1.0)]
        kept = np.zeros(round.n, dtype=bool)
        kept[best] = True
        return kept


def principal_components(gram: torch.Tensor, count: int) -> NDArray[np.float64]:
    """(n, count) the coordinates along the principal components, from the Gram matrix of centered rows.

    A component whose variance is rounding is 0: its direction is arbitrary.
    """
    scale = gram.diagonal().max().clamp(min=torch.finfo(gram.dtype).tiny)
    values, vectors = top_eigenpairs(gram / scale, count)
    top = vectors * torch.where(values > tolerance(len(gram)), values, 0).sqrt()
    rounded: NDArray[np.float64] = top.cpu().numpy().round(DIGITS)  # identical updates stay identical
    return rounded


def _sums(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) sum of distances to all others."""
    parts = [
        np.linalg.norm(points[start : start + ROWS, None] - points[None], axis=2).sum(1)
        for start in range(0, len(points), ROWS)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _similarity(cosines: NDArray[np.float64], group: NDArray[np.intp]) -> float:
    if len(group) == 1:
        return 1.0
    table = cosines[np.ix_(group, group)].copy()
    np.fill_diagonal(table, 0)
    return float(np.median(table.sum(1) / (len(group) - 1)))
