"""Krum as an aggregation rule, and the arithmetic it shares with the detector."""

from __future__ import annotations

import copy
import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError, TooFewClientsError
from ..core.ties import lowest, tolerance
from ..geometry.blocks import joined, ordered
from ..geometry.tables import ROWS

log = logging.getLogger(__name__)
#: The f whose proof has been found to need more clients.
_WARNED: set[int] = set()


def krum_scores(sq_distances: Tensor, num_malicious: int) -> Tensor:
    """s_i = Σ ‖u_i − u_j‖² over the n − f − 2 nearest *other* clients j.

    The client itself is left out by its index, not as the smallest distance, as updates may be duplicates.

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
    neighbors = n - num_malicious - 2
    if neighbors < 1:
        raise TooFewClientsError(
            f"krum sums over n - f - 2 neighbors, which is {neighbors} for "
            f"n = {n} and f = {num_malicious}; "
            f"at least {num_malicious + 3} clients are needed"
        )
    parts = []
    for start in range(0, n, ROWS):  # a few rows at a time: the full table takes 800 MB for 10⁴ clients
        rows = sq_distances[start : start + ROWS].clone()
        rows.diagonal(start).fill_(torch.inf)
        columns = rows.numpy().T if rows.device.type == "cpu" else rows.T
        parts.append(ordered(columns)[:neighbors].sum(0))
    return joined(parts)


class Neighbors:
    """Each client's squared distances to the others in ascending order, with support for removing clients.

    Args:
        sq_distances: (n, n).
    """

    def __init__(self, sq_distances: Tensor) -> None:
        table = sq_distances.cpu().numpy().copy()
        np.fill_diagonal(table, np.inf)
        self._order = table.argsort(axis=1, kind="stable")
        self._values = np.take_along_axis(table, self._order, axis=1)
        #: (m,) positions of the remaining clients.
        self.left = np.arange(len(table))

    def scores(self, count: int) -> NDArray[np.float64]:
        """(m,) the sum over the ``count`` nearest others, for each remaining client."""
        sums: NDArray[np.float64] = self._values[:, :count].sum(1)
        return sums

    def without(self, place: int) -> Neighbors:
        """Return the neighbors after removing ``left[place]``."""
        rows = np.delete(np.arange(len(self.left)), place)
        part = copy.copy(self)
        part.left = self.left[rows]
        order = self._order[rows]
        stays = order != self.left[place]
        part._order = order[stays].reshape(len(rows), len(rows))
        part._values = self._values[rows][stays].reshape(len(rows), len(rows))
        return part


def multi_krum(
    sq_distances: Tensor, num_malicious: int, count: int | None = None, slack: float | None = None
) -> list[int]:
    """Positions that Multi-Krum selects, in order: repeat Krum on the remaining clients.

    Args:
        sq_distances: (n, n) squared distances.
        num_malicious: f.
        count: how many to select, c; None selects while more than 2f + 2 clients remain, so that
            c = n − 2f − 2.
        slack: the relative rounding error of the distances; None assumes a million parameters.

    The text of NDSS 2021 asks for n − c > 2f + 2 after the last selection, which is c = n − 2f − 3, one
    client fewer. The default follows the released code, which checks before each selection;
    ``count = n − 2f − 3`` follows the text.

    Source: Shejwalkar & Houmansadr, NDSS 2021, §II-C2.
    """
    n = len(sq_distances)
    near = Neighbors(sq_distances)
    chosen: list[int] = []
    slack = tolerance(n) if slack is None else slack
    floor = 2 * num_malicious + 2 if count is None else max(num_malicious + 2, n - count)
    while len(near.left) > floor:
        place = lowest(near.scores(len(near.left) - num_malicious - 2), slack)
        chosen.append(int(near.left[place]))
        near = near.without(place)
    return chosen


def tolerated(n: int) -> int:
    """The largest f that Krum's proof tolerates for n clients: n ≥ 2f + 3."""
    return max(0, (n - 3) // 2)


def check_proof(n: int, num_malicious: int) -> None:
    """Warn if a round has fewer than 2f + 3 clients: once per process for each f."""
    needed = 2 * num_malicious + 3
    if n < needed and num_malicious not in _WARNED:
        _WARNED.add(num_malicious)
        log.warning(
            "krum: the round has %d clients, but with num_malicious = %d Krum's proof needs at least %d; "
            "lower num_malicious or have more clients per round (this is logged once)",
            n,
            num_malicious,
            needed,
        )


class Krum(Aggregator):
    """The single update with the lowest sum of squared distances to its n − f − 2 nearest others.

    The proof needs n ≥ 2f + 3. A smaller round is aggregated as well; a warning is logged once per process.

    Args:
        num_malicious: f; None assumes the largest f that the proof tolerates, ⌊(n − 3)/2⌋.

    Source: Blanchard et al., NeurIPS 2017, §4.
    """

    card = Card("krum", "the one update closest to its neighbors", "Blanchard et al., Krum, NeurIPS 2017")

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
        scores = krum_scores(round.updates.sq_distances, f).cpu().numpy()
        check_proof(round.n, f)
        return round.updates.row(lowest(scores, tolerance(round.n, round.updates.d)))
