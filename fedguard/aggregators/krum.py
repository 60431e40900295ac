"""Krum as an aggregation rule, and the arithmetic that the detector shares."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..aggregator import Aggregator
from ..blocks import ordered
from ..card import Card
from ..errors import ParameterError, TooFewClientsError
from ..round import Round


def krum_scores(sq_distances: Tensor, num_malicious: int) -> Tensor:
    """s_i = Σ ‖u_i − u_j‖² over the n − f − 2 nearest *other* clients j.

    The client itself is left out by its index, not as "the smallest distance": duplicates exist.

    Args:
        sq_distances: (n, n) squared distances.
        num_malicious: f.

    Returns:
        (n,) float64; the lowest is Krum's choice.

    Raises:
        TooFewClientsError: n − f − 2 < 1.

    Source: Blanchard et al., NeurIPS 2017, §4.
    """
    n = len(sq_distances)
    neighbours = n - num_malicious - 2
    if neighbours < 1:
        raise TooFewClientsError(
            f"krum sums over n - f - 2 neighbours, which is {neighbours} for "
            f"n = {n} and f = {num_malicious}; "
            f"at least {num_malicious + 3} clients are needed"
        )
    others = sq_distances.clone().fill_diagonal_(torch.inf)
    columns = ordered(others if others.is_cuda else others.numpy())  # the table is symmetric
    return torch.as_tensor(columns[:neighbours].sum(0))


class Neighbours:
    """Everybody's squared distances to the others in ascending order, while clients leave one by one.

    Args:
        sq_distances: (n, n).
    """

    def __init__(self, sq_distances: Tensor) -> None:
        table = sq_distances.cpu().numpy().copy()
        np.fill_diagonal(table, np.inf)
        self._order = table.argsort(axis=1)
        self._values = np.take_along_axis(table, self._order, axis=1)
        #: (m,) who is left.
        self.left = np.arange(len(table))

    def scores(self, count: int) -> NDArray[np.float64]:
        """(m,) the sum over the ``count`` nearest others, for those who are left."""
        sums: NDArray[np.float64] = self._values[:, :count].sum(1)
        return sums

    def remove(self, place: int) -> int:
        """Take out ``left[place]``, and return it."""
        gone = int(self.left[place])
        rows = np.delete(np.arange(len(self.left)), place)
        order, values = self._order[rows], self._values[rows]
        stays = order != gone
        self._order = order[stays].reshape(len(rows), len(rows))
        self._values = values[stays].reshape(len(rows), len(rows))
        self.left = self.left[rows]
        return gone


def multi_krum(sq_distances: Tensor, num_malicious: int, count: int | None = None) -> list[int]:
    """Positions that Multi-Krum selects, in order: Krum again and again on the clients that remain.

    Args:
        sq_distances: (n, n) squared distances.
        num_malicious: f.
        count: how many to select; None goes on while more than 2f + 2 clients remain.

    Source: Shejwalkar & Houmansadr, NDSS 2021, §II-C2 (n − c > 2m + 2 for c selected).
    """
    n = len(sq_distances)
    near = Neighbours(sq_distances)
    chosen: list[int] = []
    floor = 2 * num_malicious + 2 if count is None else max(num_malicious + 2, n - count)
    while len(near.left) > floor:
        scores = near.scores(len(near.left) - num_malicious - 2)
        chosen.append(near.remove(int(scores.argmin())))
    return chosen


def tolerated(n: int) -> int:
    """The largest f that Krum's proof tolerates for n clients: n ≥ 2f + 3."""
    return max(0, (n - 3) // 2)


class Krum(Aggregator):
    """The single update with the lowest sum of squared distances to its n − f − 2 nearest others.

    Args:
        num_malicious: f; None assumes the most that the proof tolerates, ⌊(n − 3)/2⌋.

    Source: Blanchard et al., NeurIPS 2017, §4.
    """

    card = Card("krum", "the one update closest to its neighbours", "Blanchard et al., Krum, NeurIPS 2017")

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """f + 3."""
        return (self.num_malicious or 0) + 3

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Return Krum's choice."""
        f = tolerated(round.n) if self.num_malicious is None else self.num_malicious
        return round.updates.row(int(krum_scores(round.updates.sq_distances, f).argmin()))
