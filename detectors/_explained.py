"""How much of an update right labels explain, how much any labels, and which mix of classes it came from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedguard.geometry.updates import Updates

from ._class_cone import nearest_in_cone
from ._label_gradients import LabelGradients
from ._signals import TINY

#: Added to cosines before the logarithm, which otherwise makes much of differences near 0.
LEAST_COSINE = 0.05
#: The smallest gradient of a class, as a share of the largest, that a mix is estimated with.
LEAST_GRADIENT = 0.1

Table = NDArray[np.float64]


class Explained(NamedTuple):
    """What the server's gradients explain of k updates.

    Attributes:
        mixes: (k, C) the estimated shares of the classes in the client's data.
        values: (k, 4) −ln(c + ε), −ln(w + ε), ln(w + ε) − ln(c + ε) and ln ‖u‖: c is the cosine to the cone
            of the gradients of right labels, w that to the cone of all labels, ε is ``LEAST_COSINE``.
    """

    mixes: Table
    values: Table


class Cones:
    """The cones of right and of all labels, spanned by the server's gradients g_st."""

    def __init__(self, gradients: LabelGradients) -> None:
        self.classes = gradients.classes
        self._gradients = gradients
        self._lengths = np.sqrt(
            np.maximum(np.diagonal(gradients.gram), 0.0)
        )  # rounding errors may be negative
        scale = np.maximum(self._lengths, TINY)
        self._gram = gradients.gram / np.outer(scale, scale)
        self._right = np.arange(self.classes) * (self.classes + 1)

    def explain(self, updates: Updates) -> Explained:
        """Project updates onto both cones.

        The share of class s is a_s / max(‖g_ss‖, ``LEAST_GRADIENT`` · max ‖g‖), a the weights of the nearest
        point of the cone of right labels; a zero update has equal shares and is explained by nothing.
        """
        norms = updates.norms.cpu().numpy()
        scale = np.outer(np.maximum(norms, TINY), np.maximum(self._lengths, TINY))
        along = self._gradients.along(updates) / scale
        right = self._right
        c, weights = nearest_in_cone(self._gram[np.ix_(right, right)], along[:, right])
        w, _ = nearest_in_cone(self._gram, along)
        least = LEAST_GRADIENT * self._lengths[right].max()
        shares = weights / np.maximum(np.maximum(self._lengths[right], least), TINY)
        total = shares.sum(1, keepdims=True)
        mixes = np.divide(shares, total, out=np.full_like(shares, 1 / self.classes), where=total > 0)
        by_right, by_any = -np.log(c + LEAST_COSINE), -np.log(w + LEAST_COSINE)
        lengths = np.log(np.maximum(norms, TINY))
        return Explained(mixes, np.stack([by_right, by_any, by_right - by_any, lengths], 1))


def entropies(mixes: Table) -> Table:
    """(k,) −Σ p ln p."""
    entropy: Table = -np.sum(mixes * np.log(np.maximum(mixes, TINY)), axis=1)
    return entropy
