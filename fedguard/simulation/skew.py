"""How far each client's labels are from those of all clients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def label_skew(parts: Sequence[ArrayLike], num_classes: int) -> NDArray[np.float64]:
    """½ Σ_c |p_i(c) − p(c)|: how far each client's labels are from those of all clients together.

    Args:
        parts: one (m_i,) array of labels for every client.
        num_classes: how many labels there are.

    Returns:
        (n,) total variation distances: 0 = labels as all clients together have them, near 1 =
        labels that no other client has.
    """
    counts = np.stack([np.bincount(np.asarray(part, dtype=int), minlength=num_classes) for part in parts])
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    skew: NDArray[np.float64] = np.abs(shares - counts.sum(0) / counts.sum()).sum(1) / 2
    return skew
