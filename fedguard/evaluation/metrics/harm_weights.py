"""How much harm an attack does, and false negatives weighted by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...core.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def harm(accuracy_lost: float, success_gained: float = float("nan")) -> float:
    """w = min(1, max(accuracy lost / 10 points, attack success gained)): how much harm an attack does.

    Args:
        accuracy_lost: accuracy of the clean run minus that of the attacked one, both without a defense, as a
            fraction.
        success_gained: attack success of that attacked run minus the clean run's, as a fraction; NaN if the
            attack has no target.

    Returns:
        A weight in [0, 1]; NaN if both are undefined.
    """
    parts = [part for part in (accuracy_lost / 0.1, success_gained) if not np.isnan(part)]
    return float(min(1.0, max(0.0, *parts))) if parts else float("nan")


def harm_weighted_fnr(fnr: ArrayLike, weights: ArrayLike) -> float:
    """Σ w·FNR / Σ w over runs: missed attackers count in proportion to the harm of their attack.

    Args:
        fnr: (runs,) fractions; NaN = undefined, left out.
        weights: (runs,) see :func:`harm`; NaN = unknown, left out.

    Returns:
        A fraction; NaN if no run has a weight above 0.

    Raises:
        ParameterError: shapes do not fit.
    """
    rates, w = np.asarray(fnr, dtype=float), np.asarray(weights, dtype=float)
    if rates.shape != w.shape:
        raise ParameterError(f"fnr has shape {rates.shape} but weights has {w.shape}")
    known = ~(np.isnan(rates) | np.isnan(w))
    total = w[known].sum()
    return float((w[known] * rates[known]).sum() / total) if total > 0 else float("nan")
