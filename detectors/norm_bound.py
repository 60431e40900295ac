"""Norm bound: updates longer than a bound."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from fedguard.contracts.card import Card
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.errors import ParameterError
from fedguard.core.ties import above, tolerance


class NormBound(Detector):
    """s_i = ‖u_i‖ / M; clients above 1 are suspects.

    Args:
        bound: M, the largest norm allowed, as in the paper; None takes ``factor`` times the ``typical`` norm
            of the round.
        factor: see ``bound``; with 1, half of all clients would be suspects in a clean round.
        typical: "median", which a minority of long updates cannot move far, or "mean" (FedREDefense, App.
            A.3, over the benign updates, which a server does not know).

    Raises:
        ParameterError: a parameter out of range.

    Source: Sun et al., Can You Really Backdoor Federated Learning?, 2019, §5; Xie et al., FedREDefense, ICML
        2024, App. A.3.
    """

    card = Card(
        "norm_bound",
        "length of the update against a bound",
        "Sun et al., Can You Really Backdoor Federated Learning?, 2019",
    )

    def __init__(
        self,
        bound: float | None = None,
        factor: float = 2.0,
        typical: Literal["median", "mean"] = "median",
    ) -> None:
        for name, value in (("bound", bound), ("factor", factor)):
            if value is not None and not 0 < value < math.inf:
                raise ParameterError(f"norm_bound: {name} is {value}; use a finite number above 0")
        if typical not in ("median", "mean"):
            raise ParameterError(f"norm_bound: typical is {typical!r}; use 'median' or 'mean'")
        self.bound = bound
        self.typical = typical
        self.factor = factor

    def score(self, round: Round) -> Scores:
        """Score by length."""
        norms = round.updates.norms.cpu().numpy()
        typical = float(norms.mean() if self.typical == "mean" else np.median(norms))
        bound = self.factor * typical if self.bound is None else self.bound
        if bound == 0:  # more than half of the updates are zero: any other is an outlier
            why = f"longer than the {self.typical} norm of 0"
            return Scores(np.where(norms > 0, np.inf, 0.0), norms > 0, why)
        longer = above(norms, bound, tolerance(round.n, round.updates.d))
        return Scores(norms / bound, longer, f"update longer than {bound:.4g}", info={"bound": bound})
