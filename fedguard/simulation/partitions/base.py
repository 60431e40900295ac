"""What the partitions share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...core.errors import ParameterError

#: The samples of each client.
Partition = list[NDArray[np.int64]]


def checked_labels(labels: ArrayLike, n: int) -> NDArray[np.int64]:
    """(N,) int64: the labels, of at least as many samples as there are clients.

    Raises:
        ParameterError: there are fewer samples than clients.
    """
    y = np.asarray(labels, dtype=np.int64)
    if n < 1 or n > len(y):
        raise ParameterError(f"{len(y)} samples cannot be dealt to {n} clients; use 1 … {len(y)} clients")
    return y
