"""A bound on what one client's claimed number of samples can do."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np

from ..core.errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..contracts.round import Round


def checked_limit(limit: float | None) -> float | None:
    """The argument if it is a finite number from 1, or None; raises ParameterError otherwise."""
    if limit is not None and not 1 <= limit < math.inf:
        raise ParameterError(f"claim_limit is {limit}; use a finite number from 1, or None for no limit")
    return limit


def counted(claims: NDArray[np.float64], limit: float | None) -> NDArray[np.float64]:
    """(n,) min(1, limit · median(n) / n_i), the share of each client's claimed samples that counts.

    Args:
        claims: (n,) positive claimed samples, of the accepted clients.
        limit: the largest claim that counts in full, as a multiple of the median, ≥ 1; None for no limit.
    """
    if limit is None or not len(claims):
        return np.ones(len(claims))
    shares: NDArray[np.float64] = np.minimum(1.0, limit * np.median(claims) / claims)
    return shares


def said(limit: float | None) -> str:
    """What the reason of a client adds whose claims do not count in full."""
    return f"; its claimed samples count as {limit:g} times the median"


def weighed(round: Round, shares: NDArray[np.float64]) -> Round:
    """The round with the samples that count, for the aggregator."""
    return (
        round if (shares == 1).all() else dataclasses.replace(round, num_examples=round.num_examples * shares)
    )
