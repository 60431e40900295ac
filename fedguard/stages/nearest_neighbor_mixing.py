"""Nearest-neighbor mixing: every update becomes the mean of those closest to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.stage import Stage
from ..core.errors import ParameterError
from ..core.ties import levels, tolerance
from ..geometry.mixed import MixedUpdates


class NearestNeighborMixing(Stage):
    """u_i ← the mean of the n − f updates closest to u_i, itself included.

    Args:
        num_malicious: f; None assumes ⌊(n − 1)/2⌋, the most with an honest majority.

    Raises:
        ParameterError: a negative f.

    Source: Allouah et al., AISTATS 2023, Algorithm 2 (NNM).
    """

    card = Card(
        "nearest_neighbor_mixing",
        "replace every update by the mean of its neighbors",
        "Allouah et al., Fixing by Mixing, AISTATS 2023",
    )

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"nearest_neighbor_mixing: num_malicious is {num_malicious}; use 0 or more")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """f + 1, so that at least the client itself remains."""
        return (self.num_malicious or 0) + 1

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Replace every update by the mean of its n − f nearest."""
        f = (round.n - 1) // 2 if self.num_malicious is None else self.num_malicious
        distances = round.updates.sq_distances.clone().fill_diagonal_(-1)  # itself first, whatever the ties
        slack = tolerance(round.n, round.updates.d)
        rank = np.stack([levels(row, slack) for row in distances.cpu().numpy()])
        chosen = rank.argsort(axis=1, kind="stable")[:, : round.n - f]
        mixing = np.zeros((round.n, round.n))
        np.put_along_axis(mixing, chosen, 1 / (round.n - f), axis=1)
        return round.with_updates(MixedUpdates(round.updates, mixing)), weights
