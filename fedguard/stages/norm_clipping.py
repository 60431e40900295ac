"""Norm clipping: shorten updates to a bound on their norm."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.stage import Stage
from ..core.errors import ParameterError

#: How to summarize the norms of a round.
Typical: TypeAlias = Literal["median", "mean"]


class NormClipping(Stage):
    """u_i ← u_i · min(1, M / ‖u_i‖) before the aggregator.

    Args:
        bound: M; None uses the ``typical`` norm of the round, which needs no knowledge of who is honest.
        typical: "median", which a minority of long updates cannot move far (FLAME's S_t), or "mean"
            (FedREDefense, App. A.3, there over the benign updates, which a server does not know).

    Raises:
        ParameterError: the bound is not a positive number, or ``typical`` is unknown.

    Source: Sun et al., Can You Really Backdoor Federated Learning?, 2019, §5; the adaptive bound: Nguyen
    et al., FLAME, USENIX Security 2022; Xie et al., FedREDefense, ICML 2024, App. A.3.
    """

    card = Card(
        "norm_clipping",
        "shorten long updates to a bound before they are aggregated",
        "Sun et al., Can You Really Backdoor Federated Learning?, 2019",
    )

    def __init__(self, bound: float | None = None, typical: Typical = "median") -> None:
        if bound is not None and not 0 < bound < float("inf"):
            raise ParameterError(f"norm_clipping: bound is {bound}; use a finite number above 0, or null")
        if typical not in ("median", "mean"):
            raise ParameterError(f"norm_clipping: typical is {typical!r}; use 'median' or 'mean'")
        self.bound = bound
        self.typical = typical

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Shorten updates longer than the bound."""
        norms = round.updates.norms
        if self.bound is not None:
            return clipped(round, self.bound), weights
        return clipped(round, float(norms.mean() if self.typical == "mean" else norms.quantile(0.5))), weights


def clipped(round: Round, bound: float) -> Round:
    """Return the round with no update longer than the bound."""
    norms = round.updates.norms
    factors = torch.where(norms > bound, bound / norms, 1.0).to(torch.float32)
    return round.with_updates(round.updates.scaled(factors))
