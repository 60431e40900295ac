"""Centered clipping: move from the last aggregate by the clients' clipped differences to it."""

from __future__ import annotations

import math
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.aggregator import Aggregator
from ..contracts.card import Card
from ..contracts.round import Round
from ..core.errors import ParameterError
from ..core.restored import vector
from ..core.state import State


class CenteredClipping(Aggregator):
    """v ← v + Σ a_i (u_i − v) min(1, τ / ‖u_i − v‖) / Σ a_i, L times, from the last round's aggregate.

    a_i is the policy's weight; the first round starts at zero. The paper applies it to clients' momenta.

    Args:
        tau: τ, the clipping radius, in the units of an update's norm. The paper's 10 suits momenta of its
            models; a radius far above honest differences gives plain averaging.
        iterations: L; according to the paper, 1 is enough with a good start.

    Raises:
        ParameterError: a parameter out of range.

    Source: Karimireddy et al., ICML 2021, Algorithm 2 (CC).
    """

    card = Card(
        "centered_clipping",
        "step from the last aggregate, differences clipped",
        "Karimireddy et al., Learning from History, ICML 2021",
    )
    exempt = MappingProxyType({"equal updates come out as they are": "it moves by at most tau"})

    def __init__(self, tau: float = 10.0, iterations: int = 1) -> None:
        if not 0 < tau < math.inf:
            raise ParameterError(f"centered_clipping: tau is {tau}; use a finite number above 0")
        if iterations < 1:
            raise ParameterError(f"centered_clipping: iterations is {iterations}; use at least 1")
        self.tau = tau
        self.iterations = iterations
        self._last: Tensor | None = None

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Clip around the center, L times."""
        device = round.updates.device
        share = torch.from_numpy(weights / weights.sum()).to(device)
        center = torch.zeros(round.updates.d, dtype=torch.float64, device=device)
        if self._last is not None and len(self._last) == len(center):
            center += self._last.to(device)
        for _ in range(self.iterations):
            lengths = round.updates.distances_to(center)
            factor = share * torch.where(lengths > self.tau, self.tau / lengths, 1.0)
            pulled = round.updates.weighted_sum(factor.cpu().numpy())
            center = center * (1 - factor.sum()) + pulled
        return center.float()

    def commit(self, round: Round, update: Tensor) -> None:
        """Keep this update as the start of the next round."""
        self._last = update.detach().clone()

    def state_dict(self) -> State:
        """Return the last aggregate."""
        return {} if self._last is None else {"last": self._last.clone()}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self._last = vector(state["last"]) if "last" in state else None
