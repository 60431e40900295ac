"""CRFL: bound the global model's norm, and smooth it with noise."""

from __future__ import annotations

import math

from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.stage import Stage
from ..core.errors import NeedError, ParameterError
from .clip_and_noise import gaussian


class CRFL(Stage):
    """w_t ← w_t · min(1, ρ / ‖w_t‖) + N(0, σ²) after the aggregator, on the global model itself.

    After the last round it is only clipped: that model is deployed, and its predictions can be certified
    (:func:`fedguard.metrics.certified_radius`). Which round is the last, a simulation
    knows (``Server.rounds``); a live guard whose server does not say adds noise in every round.

    Args:
        bound: ρ, the largest norm of the global model; 15 on MNIST in the paper.
        noise: σ, per parameter; 0.01 in the paper.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xie et al., CRFL, ICML 2021, Algorithm 1.
    """

    card = Card("crfl", "clip the global model and add noise to it", "Xie et al., CRFL, ICML 2021")
    needs = frozenset({"global_params"})

    def __init__(self, bound: float = 15.0, noise: float = 0.01) -> None:
        if not 0 < bound < math.inf:
            raise ParameterError(f"crfl: bound is {bound}; use a finite number above 0")
        if not 0 <= noise < math.inf:
            raise ParameterError(f"crfl: noise is {noise}; use a finite number from 0")
        self.bound = bound
        self.noise = noise

    def after(self, round: Round, update: Tensor) -> Tensor:
        """Clip and smooth the updated global model."""
        if round.global_params is None:
            raise NeedError("crfl needs global_params: give the round its global_params")
        start = round.global_params.double().to(update.device)
        model = start + update
        norm = float(model.norm())
        kept = model * min(1.0, self.bound / norm) if norm > 0 else model
        clipped = (kept - start).float()
        last = round.server is not None and round.server.rounds == round.index + 1
        return clipped if last else clipped + gaussian(round, self.name, update, self.noise)
