"""SignGuard: filters by length, and clusters by the signs of the coordinates."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.contracts.server import Server
from fedguard.core.errors import ParameterError
from fedguard.core.ties import above, tolerance
from fedguard.geometry.blocks import Block
from fedguard.geometry.clusters import bandwidth_of, mean_shift, nearest_center, same
from fedguard.geometry.tables import ROWS

from ._clusters import around_cut, largest_cluster
from ._ranking import by_id

#: Decimals to which features are rounded; distances between points of a few features have one less.
DIGITS, SURE = 9, 8


class SignGuard(Detector):
    """Accepts clients with L ≤ ‖u_i‖ / median ≤ R in the largest cluster of sign statistics.

    The features of client i are the shares of positive, zero and negative entries among randomly sampled
    coordinates (the same for all clients, new ones every round), and optionally its similarity to all
    clients: the median over j (including i) of cos(u_i, u_j), or of the distance divided by the median of
    these medians. Mean shift starts from every client, with the bandwidth that scikit-learn estimates from
    half of the clients (at least two). Of equally large clusters the denser one counts. All clients that are
    not accepted are suspects with a score above 1; scores grow with the distance to the cluster's center and
    with |log| of the relative length. The paper then clips the accepted updates to the median norm: add the
    stage ``norm_clipping``.

    Args:
        lower: L; 0.1.
        upper: R; 3.
        fraction: the share of coordinates sampled; 0.1.
        similarity: "none" is SignGuard, "cosine" SignGuard-Sim, "distance" SignGuard-Dist.
        orphans: clients farther than the bandwidth from every cluster's center are "suspects", as in the
            authors' code, or belong to the "nearest" cluster.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xu et al., SignGuard, ICDCS 2022, Algorithm 2.
    """

    card = Card("signguard", "length, and clusters of the signs", "Xu et al., SignGuard, ICDCS 2022")

    def __init__(
        self,
        lower: float = 0.1,
        upper: float = 3.0,
        fraction: float = 0.1,
        similarity: Literal["none", "cosine", "distance"] = "none",
        orphans: Literal["suspects", "nearest"] = "suspects",
    ) -> None:
        if not 0 <= lower < upper < float("inf"):
            raise ParameterError(f"signguard: lower is {lower} and upper {upper}; use 0 <= lower < upper")
        if not 0 < fraction <= 1:
            raise ParameterError(f"signguard: fraction is {fraction}; use a share in (0, 1]")
        if similarity not in ("none", "cosine", "distance"):
            raise ParameterError(f"signguard: similarity is {similarity!r}; use none, cosine or distance")
        if orphans not in ("suspects", "nearest"):
            raise ParameterError(f"signguard: orphans is {orphans!r}; use 'suspects' or 'nearest'")
        self.lower = lower
        self.upper = upper
        self.fraction = fraction
        self.similarity = similarity
        self.orphans = orphans

    def score(self, round: Round) -> Scores:
        """Filter by length, cluster by signs."""
        norms = round.updates.norms.cpu().numpy()
        median = float(np.median(norms))
        ratio = norms / median if median > 0 else np.where(norms > 0, np.inf, 1.0)
        slack = tolerance(round.n, round.updates.d)
        right_length = ~above(self.lower, ratio, slack) & ~above(ratio, self.upper, slack)
        features = self._features(round)
        cluster = largest_cluster(_clusters(features, round, self.orphans == "nearest"))
        accepted = right_length & cluster
        center = features[cluster].mean(0)
        away = np.linalg.norm(features - center, axis=1) + np.abs(np.log(np.clip(ratio, 1e-12, 1e12)))
        away[~above(away, 0.0, slack, scale=1.0)] = 0.0
        return Scores(
            around_cut(away, ~accepted),
            ~accepted,
            "its length or the signs of its update differ from the majority's",
            info={"accepted": float(accepted.sum())},
        )

    def _features(self, round: Round) -> NDArray[np.float64]:
        d = round.updates.d
        count = max(1, int(self.fraction * d + 0.5))
        draw = (round.server or Server()).generator("signguard", round.index)
        sampled = torch.zeros(d, dtype=torch.bool)
        sampled[torch.randperm(d, generator=draw)[:count]] = True
        counts = round.updates.map_blocks(lambda block, here: _signs(block[:, here]), sampled)
        columns = [torch.as_tensor(sum(parts)).cpu().numpy() / count for parts in zip(*counts, strict=True)]
        if self.similarity == "cosine":
            columns.append(_medians(round.updates.cosines))
        elif self.similarity == "distance":
            typical = _medians(round.updates.sq_distances, np.sqrt)
            middle = float(np.median(typical))
            columns.append(np.minimum(typical / middle, 1e6) if middle > 0 else np.sign(typical))
        return np.stack(columns, axis=1).round(DIGITS)


def _signs(sample: Block) -> tuple[Block, Block, Block]:
    """(n,) each: how many coordinates are positive, zero and negative."""
    return (sample > 0).sum(1), (sample == 0).sum(1), (sample < 0).sum(1)


def _medians(
    table: Tensor, form: Callable[[NDArray[np.float64]], NDArray[np.float64]] = np.positive
) -> NDArray[np.float64]:
    """(n,) the median of every row, a few rows at a time: the table may be large."""
    rows = (table[start : start + ROWS].cpu().numpy() for start in range(0, len(table), ROWS))
    return np.concatenate([np.median(form(some), axis=1) for some in rows])


def _clusters(features: NDArray[np.float64], round: Round, everybody: bool) -> NDArray[np.intp]:
    """(n,) clusters, −1 for orphans unless ``everybody`` gets one; clients are sorted by id first."""
    order, slack = by_id(round.client_ids), tolerance(round.n, round.updates.d, SURE)
    table = features[order]
    labels = np.zeros(round.n, dtype=np.intp)
    groups = same(table, slack)
    if (groups == 0).all():
        return labels
    bandwidth = bandwidth_of(table, max(0.5, 2 / round.n))
    if above(bandwidth, 0.0, slack, scale=1.0):
        centers = mean_shift(table, bandwidth, slack)
        groups = nearest_center(table, centers, math.inf if everybody else bandwidth, slack)
    # Otherwise there are two equally large groups of identical clients.
    labels[order] = groups
    return labels
