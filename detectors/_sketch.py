"""Count sketches: long vectors in few numbers, with inner products that are right on average."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from fedguard.contracts.round import Round
from fedguard.contracts.server import Server
from fedguard.core.errors import ParameterError
from fedguard.geometry.blocks import in_order, ranges, wide
from fedguard.geometry.updates import Updates

#: Clients whose sketches are computed at a time.
CLIENTS = 64


class Sketch:
    """x → S x with S of (k, d): every column has a single entry, ±1, in a random row.

    E ⟨Sx, Sy⟩ = ⟨x, y⟩, with a variance of (‖x‖² ‖y‖² + ⟨x, y⟩² − 2 Σ_j x_j² y_j²) / k. S depends on the
    server's seed alone, so that sketches of several rounds may be added and subtracted.

    Args:
        size: k, the number of numbers.
        d: the length of the vectors.
        round: for the server's seed.

    Source: Charikar et al., Finding frequent items in data streams, TCS 2004; the variance: Weinberger et
    al., Feature hashing, ICML 2009, Lemma 2.
    """

    def __init__(self, size: int, d: int, round: Round) -> None:
        draw = (round.server or Server()).generator("sketch", size, d)
        self.size, self._d = size, d
        self._rows = torch.randint(size, (d,), generator=draw).numpy()
        self._signs = (2.0 * torch.randint(2, (d,), generator=draw) - 1).numpy()

    def __call__(self, updates: Updates) -> Tensor:
        """(n, k) float32: the sketches of updates, summed in float64."""
        from scipy.sparse import csr_array  # a slow import, for an option of few detectors

        result = np.zeros((updates.n, self.size))
        spans = ranges(CLIENTS, self._d)
        for first in range(0, updates.n, CLIENTS):
            clients = slice(first, first + CLIENTS)

            def part(span: tuple[int, int], clients: slice = clients) -> np.ndarray:
                block = torch.as_tensor(updates.block(*span, clients)).cpu().numpy()
                columns = np.arange(span[1] - span[0])
                entries = (self._signs[slice(*span)], (self._rows[slice(*span)], columns))
                matrix = csr_array(entries, shape=(self.size, len(columns)))
                return np.asarray(matrix @ np.ascontiguousarray(wide(block).T)).T

            for some in in_order(part, spans):
                result[clients] += some
        return torch.from_numpy(result.astype(np.float32))


def check_sketch(name: str, sketch: int | None) -> None:
    """Raise ParameterError unless the size of a sketch is None or positive."""
    if sketch is not None and sketch < 1:
        raise ParameterError(f"{name}: sketch is {sketch}; use a number of at least 1, or None for no sketch")
