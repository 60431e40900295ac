"""What the metrics share: participation tables, and means over defined values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...core.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def took_part(participated: ArrayLike | None, table: NDArray[Any], what: str) -> NDArray[np.bool_]:
    """(T, n) bool: the participation table, or all clients in every round if it is absent."""
    if participated is None:
        return np.ones(table.shape, dtype=bool)
    present = np.atleast_2d(np.asarray(participated, dtype=bool))
    if present.shape != table.shape:
        raise ParameterError(f"participated has shape {present.shape} but {what} has {table.shape}")
    return present


def mean_ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> float:
    """The mean of numerator / denominator where the denominator is above 0; NaN if it never is."""
    defined = denominator > 0
    return mean(numerator[defined] / denominator[defined])


def mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")
