"""Clip and noise: FLAME's adaptive clipping and its noise."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..contracts.card import Card
from ..contracts.round import Round
from ..contracts.server import Server
from ..contracts.stage import Stage
from ..core.errors import ParameterError
from .norm_clipping import clipped

LARGEST = torch.finfo(torch.float32).max


class ClipAndNoise(Stage):
    """u_i ← u_i · min(1, S / ‖u_i‖) before the aggregator, and N(0, (λ S)²) on every parameter after it.

    S is the median norm of the updates, as in the paper of all that the guard judged, whether or not the
    detector then excludes them. Without a guard around the stage, S comes from the updates at hand.

    Args:
        noise: λ; 0.001 for images in the paper.
        bound: which updates give S: "all" as in the paper, or "admitted", those that the policy accepts. With
            "admitted", many short updates that are excluded do not lower the bound.

    Raises:
        ParameterError: a negative λ, or an unknown ``bound``.

    Example:
        >>> from fedguard import Guard, Round, make_stage
        >>> guard = Guard(stages=[make_stage("clip_and_noise", noise=0.0)])
        >>> guard.process(Round([[1.0, 0.0], [2.0, 0.0], [9.0, 0.0]])).aggregate  # S = 2
        tensor([1.6667, 0.0000])

    Source: Nguyen et al., FLAME, USENIX Security 2022, Algorithm 1 (lines 9 to 16).
    """

    card = Card(
        "clip_and_noise",
        "clip to the median norm, add noise in proportion",
        "Nguyen et al., FLAME, USENIX Security 2022",
    )

    def __init__(self, noise: float = 0.001, bound: Literal["all", "admitted"] = "all") -> None:
        if not 0 <= noise < math.inf:
            raise ParameterError(f"clip_and_noise: noise is {noise}; use a finite number from 0")
        if bound not in ("all", "admitted"):
            raise ParameterError(f"clip_and_noise: bound is {bound!r}; use 'all' or 'admitted'")
        self.noise = noise
        self.bound = bound

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Clip to the median norm."""
        return clipped(round, self._median_norm(round)), weights

    def after(self, round: Round, update: Tensor) -> Tensor:
        """Add noise in proportion to the median norm."""
        std = self.noise * self._median_norm(round)
        noisy = update + gaussian(round, self.name, update, std)
        return noisy.clamp(-LARGEST, LARGEST)  # noise scales with the updates, so the sum may overflow

    def _median_norm(self, round: Round) -> float:
        """S."""
        received = round.server.received if self.bound == "all" and round.server else None
        return float(torch.quantile((round.updates if received is None else received).norms, 0.5))


def gaussian(round: Round, purpose: str, like: Tensor, std: float) -> Tensor:
    """(d,) normal noise from the server's generator, different for every round and purpose."""
    draw = (round.server or Server()).generator(purpose, round.index)
    noise = torch.randn(like.shape, generator=draw, dtype=torch.float32) * std
    return noise.to(like.device)
