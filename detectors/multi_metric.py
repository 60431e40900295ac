"""Multi-metric: lengths in two norms and the angle, whitened."""

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
from fedguard.core.ties import snapped, tolerance
from fedguard.geometry.tables import ROWS

from ._ranking import ranks
from .flame import model_cosine_distances


class MultiMetric(Detector):
    """δ_i = √(x'_iᵀ Σ⁻¹ x'_i); the share ``keep`` with the lowest δ is accepted, all others are suspects.

    x_i = (‖u_i‖₁, ‖u_i‖₂, cos(w, w + u_i)): Manhattan and Euclidean distance of the local model to the global
    one, and their cosine. x'_i sums |x_i − x_j| over the other clients, per metric. Σ is the covariance of x'
    over clients, so that metrics on different scales count equally. For a singular Σ (few clients, or a
    metric in which all agree), the pseudo-inverse is taken, after dividing each column by its maximum. Equal
    scores are ordered by client id. The method does not estimate the number of malicious clients: it suspects
    the same number of clients in a clean round.

    Args:
        keep: the share of clients to accept, rounded down, at least one client; 0.3 in the paper.
        distances: "to_global" is the paper's x'. "pairwise" follows the authors' code: sums over j of
            ‖u_i − u_j‖₁, of the difference in length of the two local models, and of their (1 − cos)².

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
            "planted attack on top": "the covariance includes the outlier, so that among few clients "
            "whitening brings it as close as the others"
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
    angles, size = angle_to_global(round), float(_largest_angles(round).max())
    columns = _apart(round, manhattan), _apart(round, round.updates.norms), _apart(round, angles, size)
    return np.stack(columns, 1)


def _apart(round: Round, values: Tensor, scale: float = 0.0) -> NDArray[np.float64]:
    """(n,) Σ_j |x_i − x_j|, 0 for what is equal up to rounding: whitening would blow up the rounding.

    Args:
        round: gives the size of the sums behind the values.
        values: (n,) x.
        scale: the magnitude of the terms that the values are differences of.
    """
    equal = snapped(values.cpu().numpy(), tolerance(round.n, round.updates.d), scale)
    rows = (equal[start : start + ROWS, None] for start in range(0, len(equal), ROWS))
    return np.concatenate([np.abs(some - equal).sum(1) for some in rows])


def angle_to_global(round: Round) -> Tensor:
    """(n,) 1 − cos(w, w + u_i) of the local models, without cancellation; 1 if one of them is zero.

    1 − cos = (‖u‖² − (‖w + u‖ − ‖w‖)²) / (2 ‖w‖ ‖w + u‖): the cosine itself is 1 up to rounding.
    """
    start, lengths, longer = _lengths(round)
    scale = 2 * start * lengths
    rest = (round.updates.norms.square() - longer.square()).clamp(min=0)
    return torch.where(scale > 0, rest / scale, 1.0)


def _largest_angles(round: Round) -> Tensor:
    """(n,) ‖u‖² / (2 ‖w‖ ‖w + u‖): 1 − cos of a client whose update does not change the length."""
    start, lengths, _ = _lengths(round)
    scale = 2 * start * lengths
    return torch.where(scale > 0, round.updates.norms.square() / scale, 1.0)


def _pairwise(round: Round) -> NDArray[np.float64]:
    """(n, 3) sums over j of Manhattan distance, difference in length, and squared cosine distance."""
    n = round.n
    manhattan = torch.zeros((n, n), dtype=torch.float64, device=round.updates.device)
    for block in round.updates.blocks():
        manhattan += torch.cdist(block, block, p=1)
    _, _, longer = _lengths(round)
    apart = _apart(round, longer, float(round.updates.norms.max()))
    angles = model_cosine_distances(round) ** 2
    return np.stack([manhattan.cpu().numpy().sum(1), apart, angles.sum(1)], 1)


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
