"""Who comes first: the same answer wherever a client stands in the round."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedguard.round import ClientId


def ranks(values: NDArray[np.float64], client_ids: Sequence[ClientId]) -> NDArray[np.intp]:
    """(n,) 0 for the lowest value … n − 1 for the highest, all different.

    Equal values are ordered by client id (integers before strings), so that a tie is not decided by
    the order in which updates happen to arrive.
    """
    ids = sorted(range(len(client_ids)), key=lambda i: (isinstance(client_ids[i], str), client_ids[i]))
    by_id = np.empty(len(ids), dtype=np.intp)
    by_id[ids] = np.arange(len(ids))
    result = np.empty(len(ids), dtype=np.intp)
    result[np.lexsort((by_id, values))] = np.arange(len(ids))
    return result
