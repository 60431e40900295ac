"""Clipped clustering: clip to the usual norm, split by angle in two, and average the larger part."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ..core.restored import vector
from ..core.state import State

#: Norms that are remembered, the newest ones.
MOST_NORMS = 100_000


def larger_part(cosines: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) True in the larger of two clusters: average linkage on the distances 1 − cos.

    Of two equal ones, the one whose members are more alike; below three clients, everybody.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    n = len(cosines)
    if n < 3:
        return np.ones(n, dtype=bool)
    apart = np.clip(1 - cosines, 0, 2).round(12)
    np.fill_diagonal(apart, 0)
    tree = linkage(squareform(apart, checks=False), "average")
    first: NDArray[np.bool_] = fcluster(tree, 2, "maxclust") == 1
    if first.all():  # everybody points the same way
        return first
    spread = [apart[np.ix_(part, part)].mean() for part in (first, ~first)]
    rank = [(-part.sum(), value) for part, value in zip((first, ~first), spread, strict=True)]
    return first if rank[0] <= rank[1] else ~first


class ClippedClustering(Aggregator):
    """Mean over the larger of two clusters of u_i · min(1, τ / ‖u_i‖), τ the median of all norms so far.

    The clusters come from agglomerative clustering with average linkage on 1 − cos(u_i, u_j). Norms of this
    round count for τ, too. Weights only decide who takes part.

    Args:
        tau: the clipping norm; None takes the median of all norms seen.

    Source: Li et al., IEEE Transactions on Big Data 2023, An Experimental Study of Byzantine-Robust
        Aggregation Schemes in Federated Learning; without clipping it is Sattler et al., ICASSP 2020.
    """

    card = Card(
        "clipped_clustering",
        "clipped mean of the larger of two clusters by angle",
        "Li et al., An Experimental Study of Byzantine-Robust Aggregation Schemes, 2023",
    )

    def __init__(self, tau: float | None = None) -> None:
        if tau is not None and not 0 < tau < float("inf"):
            raise ParameterError(f"clipped_clustering: tau is {tau}; use a finite number above 0")
        self.tau = tau
        self._norms: NDArray[np.float64] = np.zeros(0)

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Clip, cluster, average."""
        norms = round.updates.norms.cpu().numpy()
        tau = float(np.median([*self._norms, *norms])) if self.tau is None else self.tau
        kept = larger_part(round.updates.cosines.cpu().numpy())
        factors = np.where(norms > tau, tau / np.where(norms > 0, norms, 1), 1.0)
        return round.updates.weighted_sum(np.where(kept, factors, 0.0) / kept.sum()).float()

    def commit(self, round: Round, update: Tensor) -> None:
        """Remember the norms of this round."""
        norms = round.updates.norms.cpu().numpy()
        self._norms = np.concatenate([self._norms, norms[np.isfinite(norms)]])[-MOST_NORMS:]

    def state_dict(self) -> State:
        """Return the norms seen."""
        return {"norms": torch.from_numpy(self._norms.copy())} if len(self._norms) else {}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self._norms = vector(state["norms"]).double().numpy() if "norms" in state else np.zeros(0)
