"""Multi-metric: length in two norms and angle at once, whitened."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.ties import tolerance

from ._ranking import ranks
from .flame import model_cosine_distances


class MultiMetric(Detector):
    """δ_i = √(x'_iᵀ Σ⁻¹ x'_i); all but the share with the lowest δ are suspects.

    x_i = (‖u_i‖₁, ‖u_i‖₂, cos(w, w + u_i)): Manhattan and Euclidean distance of the local model to the global
    one, and their cosine. x'_i sums |x_i − x_j| over the other clients, per metric, and Σ is the covariance
    of x' over clients: metrics on different scales count alike. If Σ is singular (few clients, or a metric in
    which all agree), it is inverted where it is not: the pseudo-inverse, of columns divided by their maxima
    first. Equal scores are ordered by client id. Nothing says how many clients are malicious: in a clean
    round as in any other, all but the share are suspects.

    Args:
        keep: the share of clients that is aggregated, rounded down, but one at least; 0.3 in the paper.
        distances: "to_global" is the paper's x'. "pairwise" is the authors' own code: sums over j of
            ‖u_i − u_j‖₁, of the difference of the lengths of the two local models, and of (1 − cos)² between
            them.

    Raises:
        ParameterError: a parameter out of range.

    Source: Huang et al., ICCV 2023, §4 (equations 5 to 8).
    """

    card = Card(
        "multi_metric",
        "Manhattan, Euclidean and cosine differences, whitened",
        "Huang et al., Multi-Metrics Adaptively Identifies Backdoors, ICCV 2023",
    )
    needs = frozenset({"global_params"})
    exempt = MappingProxyType(
        {
            "planted attack on top": "the covariance includes the outlier: among few clients, whitening "
            "makes it no farther out than the others"
        }
    )

    def __init__(self, keep: float = 0.3, distances: Literal["to_global", "pairwise"] = "to_global") -> None:
        if not 0 < keep <= 1:
            raise ParameterError(f"multi_metric: keep is {keep}; use a share in (0, 1]")
        if distances not in ("to_global", "pairwise"):
            raise ParameterError(f"multi_metric: distances is {distances!r}; use 'to_global' or 'pairwise'")
        self.keep = keep
        self.distances = distances

    def score(self, round: Round) -> Scores:
        """Score by the whitened differences to the others."""
        sums = _to_global(round) if self.distances == "to_global" else _pairwise(round)
        largest = sums.max(0)
        sums = (sums / np.where(largest > 0, largest, 1)).round(12)  # identical updates, identical scores
        covariance = np.cov(sums.T) if round.n > 1 else np.zeros((3, 3))
        whitening = np.linalg.pinv(covariance, rcond=1e-10, hermitian=True)
        values = np.sqrt(np.clip(np.einsum("ij,jk,ik->i", sums, whitening, sums), 0, None)).round(9)
        count = max(1, int(self.keep * round.n + 1e-9))
        suspects = ranks(values, round.client_ids, tolerance(round.n, round.updates.d, 9), scale=1.0) >= count
        return Scores(values, suspects, f"not among the {count} lowest scores")


def _to_global(round: Round) -> NDArray[np.float64]:
    """(n, 3) Σ_j |x_i − x_j| of Manhattan, Euclidean and cosine distance to the global model."""
    manhattan = round.updates.sum_blocks(lambda block: abs(block).sum(1))
    norms = round.updates.norms
    start, lengths, longer = _lengths(round)
    # 1 − cos = (‖u‖² − (‖w + u‖ − ‖w‖)²) / (2 ‖w‖ ‖w + u‖): the cosine itself is 1 up to rounding
    scale = 2 * start * lengths
    angle = torch.where(scale > 0, (norms.square() - longer.square()).clamp(min=0) / scale, 1.0)
    x = torch.stack([manhattan, norms, angle], 1)
    return np.stack([np.abs(column[:, None] - column).sum(1) for column in x.T.cpu().numpy()], 1)


def _pairwise(round: Round) -> NDArray[np.float64]:
    """(n, 3) sums over j of Manhattan distance, difference in length, and squared cosine distance."""
    n = round.n
    manhattan = torch.zeros((n, n), dtype=torch.float64, device=round.updates.matrix.device)
    for block in round.updates.blocks():
        manhattan += torch.cdist(block, block, p=1)
    _, _, longer = _lengths(round)
    apart = (longer[:, None] - longer).abs().cpu().numpy()
    angles = model_cosine_distances(round) ** 2
    return np.stack([manhattan.cpu().numpy().sum(1), apart.sum(1), angles.sum(1)], 1)


def _lengths(round: Round) -> tuple[Tensor, Tensor, Tensor]:
    """‖w‖, (n,) ‖w + u_i‖ and (n,) ‖w + u_i‖ − ‖w‖, the last without cancellation."""
    if round.global_params is None:
        raise NeedError("multi_metric needs global_params: give the round its global_params")
    updates = round.updates
    start = round.global_params.double().to(updates.device)
    gain = 2 * updates.along(start) + updates.norms.square()
    lengths = (start.square().sum() + gain).clamp(min=0).sqrt()
    both = lengths + start.norm()
    return start.norm(), lengths, torch.where(both > 0, gain / both, 0.0)
