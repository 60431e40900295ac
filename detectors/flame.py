"""FLAME: clients outside the majority's cluster of models are suspects."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import NeedError
from fedguard.core.ties import tolerance
from fedguard.geometry.tables import ROWS

from ._clusters import around_cut, hdbscan_labels, mean_to


def model_cosine_distances(round: Round) -> NDArray[np.float64]:
    """(n, n) 1 − cos(w + u_i, w + u_j) of the local models, without cancellation.

    The cosines of local models differ by 1e-8, less than the rounding errors of their inner products.
    Therefore 1 − cos = (‖u_i − u_j‖² − (‖m_i‖ − ‖m_j‖)²) / (2 ‖m_i‖ ‖m_j‖), where ‖m_i‖² − ‖m_j‖² = q_i − q_j
    with q_i = 2⟨w, u_i⟩ + ‖u_i‖². A zero model is at distance 1 from all others.
    """
    if round.global_params is None:
        raise NeedError("flame needs global_params: give the round its global_params")
    updates = round.updates
    start = round.global_params.double().to(updates.device)
    shift = 2 * updates.along(start) + updates.norms.square()
    lengths = (start @ start + shift).clamp(min=0).sqrt()
    result = torch.empty_like(updates.sq_distances)
    for start_row in range(0, updates.n, ROWS):  # a few rows at a time: the table may be large
        rows = slice(start_row, start_row + ROWS)
        sums = lengths[rows, None] + lengths[None]
        apart = torch.where(sums > 0, (shift[rows, None] - shift[None]) / sums, 0.0)
        scale = 2 * lengths[rows, None] * lengths[None]
        distances = (updates.sq_distances[rows] - apart.square()).clamp(min=0)
        result[rows] = torch.where(scale > 0, distances / scale, 1.0).clamp(max=2)
    return result.fill_diagonal_(0).cpu().numpy()


class FLAME(Detector):
    """Outliers of HDBSCAN on the cosine distances 1 − cos(w + u_i, w + u_j) of local models are suspects.

    Clusters have at least ⌊n/2⌋ + 1 members, so there is at most one. The score of suspects is above 1;
    scores grow with the mean distance to the accepted clients. If all clients are outliers, all are suspects
    and the global model stays as it is. FLAME's clipping and noise are the stage ``clip_and_noise``.

    The clustering works on copies of all n² distances: about 72 n² bytes, 7 GB for 10,000 clients.

    Source: Nguyen et al., FLAME, USENIX Security 2022, §4.3 and Algorithm 1.
    """

    card = Card(
        "flame",
        "outliers of a clustering of the local models by angle",
        "Nguyen et al., FLAME, USENIX Security 2022",
    )
    needs = frozenset({"global_params"})

    def score(self, round: Round) -> Scores:
        """Cluster the models."""
        distances = model_cosine_distances(round)
        labels = hdbscan_labels(
            distances, round.n // 2 + 1, round.client_ids, tolerance(round.n, round.updates.d)
        )
        suspects = labels < 0
        norm = float(torch.quantile(round.updates.norms, 0.5))
        return Scores(
            around_cut(mean_to(distances, ~suspects), suspects),
            suspects,
            "its model is outside the majority's cluster",
            info={"median_norm": norm, "accepted": float((~suspects).sum())},
        )
