"""Rankings that do not depend on the order in which updates arrive."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedguard.core.ids import ClientId
from fedguard.core.ids import by_id as by_id
from fedguard.core.ties import levels, tolerance


def ranks(
    values: NDArray[np.float64],
    client_ids: Sequence[ClientId],
    slack: float | None = None,
    scale: float = 0.0,
) -> NDArray[np.intp]:
    """(n,) 0 for the lowest value … n − 1 for the highest, all different.

    Values that are equal up to rounding are ordered by client id (integers before strings), so that neither
    the order of arrival nor the machine decides a tie.

    Args:
        values: (n,); +Inf allowed.
        client_ids: the n clients.
        slack: the relative rounding error of the values; None assumes a million parameters.
        scale: see :func:`fedguard.core.ties.above`.
    """
    level = levels(values, tolerance(len(values)) if slack is None else slack, scale)
    ids = by_id(client_ids)
    place = np.empty(len(ids), dtype=np.intp)
    place[ids] = np.arange(len(ids))
    result = np.empty(len(ids), dtype=np.intp)
    result[np.lexsort((place, level))] = np.arange(len(ids))
    return result
