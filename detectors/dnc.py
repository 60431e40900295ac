"""DnC (divide and conquer): spectral filtering on random coordinates."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError, TooFewClientsError
from fedguard.core.seeds import generator
from fedguard.core.ties import tolerance
from fedguard.geometry.blocks import row_squares
from fedguard.geometry.eigen import top_eigenvector, top_of_centered_gram
from fedguard.geometry.updates import Updates

from ._ranking import ranks

#: Spread below this share of the squared norms is the rounding error of the mean.
ROUNDING = 1e-24
#: Decimals, relative to the largest projection, to which projections are compared: identical updates tie.
DIGITS = 12
#: Up to this many parameters, coordinates are sampled by permuting all of them.
PERMUTED = 10**7
ABOVE_ONE = float(np.nextafter(1, 2))


def outlier_scores(sample: Tensor) -> NDArray[np.float64]:
    """(n,) s_i = ⟨x_i − x̄, v⟩², v the top right singular vector of the centered rows, as shares of max s.

    From the smaller Gram matrix: with C = centered rows and C Cᵀ a = λ a, s = λ a². If all rows are
    equal, all scores are 0.
    """
    updates, (n, b) = Updates(sample), sample.shape
    spread = updates.sum_blocks(lambda block, mean: row_squares(block - mean).sum(), updates.mean)
    if spread <= ROUNDING * updates.norms.square().sum():
        return np.zeros(n)
    if n <= b:
        projections = top_of_centered_gram(updates)
    else:
        centered = sample.double() - updates.mean
        projections = centered @ top_eigenvector(centered.T @ centered)
    squares = projections.square()
    shares: NDArray[np.float64] = (squares / squares.max()).cpu().numpy()
    return shares


def against_cut(scores: NDArray[np.float64], rank: NDArray[np.intp], keep: int) -> NDArray[np.float64]:
    """Scores as multiples of the cut between kept and removed: above 1 exactly where rank ≥ keep."""
    removed = rank >= keep
    if not removed.any():
        return scores  # shares of the largest score, so none is above 1
    cut = (scores[~removed].max() + scores[removed].min()) / 2
    ratio = scores / cut if cut > 0 else scores
    return np.where(removed, np.maximum(ratio, ABOVE_ONE), np.minimum(ratio, 1.0))


class DnC(Detector):
    """max over iterations of s_i / cut; clients outside the good set are suspects, with a value above 1.

    Each iteration samples b coordinates without replacement, centers them, takes the top right singular
    vector v, s_i = ⟨u_i − μ, v⟩², and keeps the n − ⌈c·f⌉ lowest. The good set is the intersection of
    what the iterations keep. The cut of an iteration lies midway between its kept and its removed scores.
    Each iteration removes exactly ⌈c·f⌉ clients; among equal scores, those later by id. If the good set is
    empty, all clients are suspects; a policy that excludes suspects then leaves the global model unchanged.

    Args:
        num_malicious: f; None assumes ⌊(n − 1)/2⌋, the most that an honest majority allows.
        niters: iterations; some released code has 1.
        coordinates: b, the number of coordinates per iteration; at most d.
        filter_fraction: c, the number of clients to remove, as a multiple of f.

    Raises:
        TooFewClientsError: ⌈c·f⌉ ≥ n, so that no client would be kept.

    Source: Shejwalkar & Houmansadr, NDSS 2021, §VII, Algorithm 2; the released defaults.
    """

    card = Card(
        "dnc",
        "projection on the direction in which the updates vary most",
        "Shejwalkar & Houmansadr, Manipulating the Byzantine, NDSS 2021",
    )

    def __init__(
        self,
        num_malicious: int | None = None,
        niters: int = 5,
        coordinates: int = 10_000,
        filter_fraction: float = 1.0,
    ) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"dnc: num_malicious is {num_malicious}; it cannot be negative")
        if niters < 1:
            raise ParameterError(f"dnc: niters is {niters}; at least one iteration is needed")
        if coordinates < 1:
            raise ParameterError(f"dnc: coordinates is {coordinates}; at least one is needed")
        if not (math.isfinite(filter_fraction) and filter_fraction >= 0):
            raise ParameterError(f"dnc: filter_fraction is {filter_fraction}; use a number >= 0, say 1")
        self.num_malicious = num_malicious
        self.niters = niters
        self.coordinates = coordinates
        self.filter_fraction = filter_fraction

    def min_clients(self) -> int:
        """⌈c·f⌉ + 1, so that at least one client is kept."""
        return self._removed(self.num_malicious or 0) + 1

    def score(self, round: Round) -> Scores:
        """Score by the worst iteration."""
        f = (round.n - 1) // 2 if self.num_malicious is None else self.num_malicious
        removed = self._removed(f)
        if removed >= round.n:
            raise TooFewClientsError(
                f"dnc would remove {removed} of {round.n} clients; lower filter_fraction or num_malicious"
            )
        values = np.zeros(round.n)
        for sample in self._samples(round):
            shares = outlier_scores(sample)
            slack = tolerance(round.n, sample.shape[1], DIGITS)
            rank = ranks(np.sqrt(shares), round.client_ids, slack, scale=1.0)
            values = np.maximum(values, against_cut(shares, rank, round.n - removed))
        suspects = values > 1
        return Scores(
            values,
            suspects,
            f"among the {removed} largest projections in one of {self.niters} samples",
            info={"kept": float((~suspects).sum())},
        )

    def _removed(self, f: int) -> int:
        return math.ceil(self.filter_fraction * f - 1e-9)  # 1.1 · 50 is 55.00000000000001

    def _samples(self, round: Round) -> Iterator[Tensor]:
        """The sampled columns of each iteration; a single sample if b ≥ d, where all would be equal."""
        updates, d = round.updates, round.updates.d
        if self.coordinates >= d:
            yield updates.between(slice(d)).matrix
            return
        server = round.server
        draw = server.generator("dnc", round.index) if server else generator(0, "dnc", round.index)
        for _ in range(self.niters):
            yield updates.columns(_chosen(d, self.coordinates, draw))


def _chosen(d: int, count: int, draw: torch.Generator) -> Tensor:
    """(count,) distinct coordinates, for large d without permuting all of them."""
    if d <= PERMUTED:
        return torch.randperm(d, generator=draw)[:count]
    chosen: set[int] = set()
    while len(chosen) < count:
        chosen.update(torch.randint(d, (count - len(chosen),), generator=draw).tolist())
    return torch.tensor(sorted(chosen))
