"""Three sigma: clients much farther from the center than the others."""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedguard.aggregators.krum import krum_scores, tolerated
from fedguard.aggregators.median import Median
from fedguard.contracts.card import Card
from fedguard.contracts.decision import Decision
from fedguard.contracts.detector import Detector
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.core.deprecation import renamed_keywords
from fedguard.core.errors import NeedError, ParameterError
from fedguard.core.restored import vector
from fedguard.core.state import State
from fedguard.core.ties import above, tolerance
from fedguard.geometry.updates import Updates

from ._layers import Part, of_part
from ._ranking import ranks

CENTERS = ("accepted", "mean", "median", "krum")
LARGEST = torch.finfo(torch.float32).max


@renamed_keywords(centre="center")
class ThreeSigma(Detector):
    """s_i = ‖w_i − c‖, w_i = w + u_i the local model; suspect if s_i > μ + k σ of the round (one-sided).

    c is the mean of the local models that were not suspects in the previous round. In the first round it is
    the mean of the ⌈n/2⌉ − 1 models with the lowest Krum scores, each over its ⌈n/2⌉ − 1 nearest others. This
    assumes a malicious minority but not f. With n clients, no score exceeds μ + σ √(n − 1), so k = 3 needs
    n ≥ 11. Attackers with equal updates are never suspects if their share exceeds 1/(1 + k²).

    Args:
        sigmas: k; 3 as the name says, 1 in the authors' code.
        center: c: "accepted" as above, or of this round the "mean" of all models, their coordinate-wise
            "median", or Krum's choice ("krum", with the largest f that its proof allows). "accepted" needs
            the global model, and its first c is the plain mean of fewer than three clients. "krum" needs
            three clients.
        features: "all" compares and stores whole models, "last_layer" last layers only; the latter needs the
            model.

    Raises:
        ParameterError: a parameter out of range.

    Source: Han et al., FedSecurity, KDD 2024, Table 1 (anomaly detection); Han et al., Kick Bad Guys Out!,
    2023, §3 (cross-client detection).
    """

    card = Card(
        "three_sigma",
        "distance to the center, more than three deviations out",
        "Han et al., Kick Bad Guys Out!, arXiv 2023",
    )
    check_plant_with = MappingProxyType({"sigmas": 2.0})  # among eight clients, none can be 3 σ out

    def __init__(
        self,
        sigmas: float = 3.0,
        center: Literal["accepted", "mean", "median", "krum"] = "accepted",
        features: Part = "all",
    ) -> None:
        if not 0 <= sigmas < math.inf:
            raise ParameterError(f"three_sigma: sigmas is {sigmas}; use a finite number of at least 0")
        if center not in CENTERS:
            raise ParameterError(f"three_sigma: center is {center!r}; use one of {', '.join(CENTERS)}")
        if features not in ("all", "last_layer"):
            raise ParameterError(f"three_sigma: features is {features!r}; use 'all' or 'last_layer'")
        self.sigmas = sigmas
        self.center = center
        self.features = features
        needs = {"global_params"} if center == "accepted" else set()
        self.needs = frozenset(needs | ({"model"} if features == "last_layer" else set()))
        self._average: Tensor | None = None

    def min_clients(self) -> int:
        """Three for Krum's choice, otherwise one."""
        return 3 if self.center == "krum" else 1

    def score(self, round: Round) -> Scores:
        """Score by the distance to the center."""
        updates, start = of_part(round, self.features)
        distances = self._distances(round, updates, start).cpu().numpy()
        largest = distances.max()
        scaled = distances / largest if largest > 0 else distances  # squares of huge distances overflow
        limit = scaled.mean() + self.sigmas * scaled.std()
        suspects = above(scaled, limit, tolerance(round.n, round.updates.d), scale=1.0)
        memory = None
        if self.center == "accepted" and start is not None and bool(start.isfinite().all()):
            accepted = updates.take(~suspects).mean + start.double()
            memory = accepted.clamp(-LARGEST, LARGEST).float().cpu()
        return Scores(
            distances,
            suspects,
            f"more than {self.sigmas:g} deviations farther from the center ({self.center}) than the mean",
            info={"limit": float(limit * (largest if largest > 0 else 1))},
            memory=memory,
        )

    def _distances(self, round: Round, updates: Updates, start: Tensor | None) -> Tensor:
        """(n,) ‖u_i − (c − w)‖, float64."""
        if self.center == "krum":
            scores = krum_scores(updates.sq_distances, tolerated(updates.n)).cpu().numpy()
            return updates.sq_distances[int(ranks(scores, round.client_ids).argmin())].sqrt()
        return updates.distances_to(self._center(round, updates, start))

    def _center(self, round: Round, updates: Updates, start: Tensor | None) -> Tensor:
        """(d,) c − w, float64."""
        if self.center == "mean":
            return updates.mean
        if self.center == "median":
            return Median().aggregate(Round(updates), np.ones(updates.n)).double()
        if start is None:
            raise NeedError("three_sigma needs global_params: give the round its global_params")
        fits = self._average is not None and self._average.shape == start.shape
        if self._average is not None and fits and bool(start.isfinite().all()):  # otherwise it has diverged
            return self._average.double().to(start.device) - start.double()
        if updates.n < 3:
            return updates.mean
        scores = krum_scores(updates.sq_distances, updates.n // 2 - 1).cpu().numpy()
        return updates.take(ranks(scores, round.client_ids) < (updates.n + 1) // 2 - 1).mean

    def commit(self, round: Round, scores: Scores, decision: Decision | None = None) -> None:
        """Store the mean of the models that are not suspects as the next center."""
        if scores.memory is not None:
            self._average = scores.memory

    def state_dict(self) -> State:
        """The mean of the models accepted last."""
        return {} if self._average is None else {"average": self._average}

    def load_state_dict(self, state: State) -> None:
        """Restore a snapshot of ``state_dict``."""
        self._average = vector(state["average"]) if "average" in state else None
