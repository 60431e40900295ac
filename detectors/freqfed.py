"""FreqFed: clusters the low frequencies of the updates."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError
from fedguard.core.ties import tolerance
from fedguard.geometry.updates import Updates

from ._clusters import around_cut, hdbscan_labels, largest_cluster, mean_to


class FreqFed(Detector):
    """Clients outside the largest HDBSCAN cluster of the updates' low DCT frequencies are suspects.

    Each update is transformed as one vector by the orthonormal DCT-II, and its lowest frequencies are kept.
    Clients are clustered by the cosine distance between these, with clusters of at least ⌊n/2⌋ + 1. The score
    of suspects is above 1; scores grow with the mean distance to the accepted clients. Without a cluster, all
    clients are suspects.

    Args:
        fraction: the share of frequencies to keep, from the lowest, in (0, 1].

    Raises:
        ParameterError: a fraction out of range.

    Source: Fereidooni et al., FreqFed, NDSS 2024, §IV.
    """

    card = Card(
        "freqfed",
        "clusters of the updates' low frequencies",
        "Fereidooni et al., FreqFed, NDSS 2024",
    )
    plant = "backwards"  # noise is as far from the others as they are from each other

    def __init__(self, fraction: float = 0.5) -> None:
        if not 0 < fraction <= 1:
            raise ParameterError(f"freqfed: fraction is {fraction}; use a share in (0, 1]")
        self.fraction = fraction

    def score(self, round: Round) -> Scores:
        """Transform, drop high frequencies, cluster."""
        low = np.stack([self._low_frequencies(round.updates.row(i).cpu().numpy()) for i in range(round.n)])
        distances = 1 - Updates(low).cosines.numpy()
        np.fill_diagonal(distances, 0)
        slack = tolerance(round.n, low.shape[1])  # of a cosine
        distances[distances < max(1e-12, slack)] = 0  # equal updates are at distance 0
        labels = hdbscan_labels(distances, round.n // 2 + 1, round.client_ids, slack, scale=1.0)
        accepted = largest_cluster(labels)
        return Scores(
            around_cut(mean_to(distances, accepted), ~accepted),
            ~accepted,
            "its low frequencies are not in the largest cluster",
            info={"accepted": float(accepted.sum())},
        )

    def _low_frequencies(self, row: NDArray[np.float32]) -> NDArray[np.float32]:
        count = max(1, int(self.fraction * len(row) + 0.5))
        scale = float(np.abs(row).max()) or 1.0  # only directions matter; huge updates stay finite
        spectrum: NDArray[np.float64] = dct(row.astype(np.float64) / scale, norm="ortho")
        return spectrum[:count].astype(np.float32)
