"""Who comes first: the same answer wherever a client stands in the round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedguard.round import ClientId
from fedguard.round import by_id as by_id


def ranks(values: NDArray[np.float64], client_ids: Sequence[ClientId]) -> NDArray[np.intp]:
    """(n,) 0 for the lowest value … n − 1 for the highest, all different.

    Equal values are ordered by client id (integers before strings), so that a tie is not decided by
    the order in which updates happen to arrive.
    """
    ids = by_id(client_ids)
    place = np.empty(len(ids), dtype=np.intp)
    place[ids] = np.arange(len(ids))
    result = np.empty(len(ids), dtype=np.intp)
    result[np.lexsort((place, values))] = np.arange(len(ids))
    return result
