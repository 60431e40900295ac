"""Clip and noise: FLAME's adaptive clipping and its noise."""

from __future__ import annotations

import math

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

    S is the median norm of the accepted clients. FLAME takes the median of all clients, including those that
    its clustering removes; a stage sees only accepted ones.

    Args:
        noise: λ; 0.001 for images in the paper.

    Raises:
        ParameterError: a negative λ.

    Source: Nguyen et al., FLAME, USENIX Security 2022, Algorithm 1 (lines 9 to 16).
    """

    card = Card(
        "clip_and_noise",
        "clip to the median norm, add noise in proportion",
        "Nguyen et al., FLAME, USENIX Security 2022",
    )

    def __init__(self, noise: float = 0.001) -> None:
        if not 0 <= noise < math.inf:
            raise ParameterError(f"clip_and_noise: noise is {noise}; use a finite number from 0")
        self.noise = noise

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Clip to the median norm."""
        return clipped(round, float(torch.quantile(round.updates.norms, 0.5))), weights

    def after(self, round: Round, update: Tensor) -> Tensor:
        """Add noise in proportion to the median norm."""
        std = self.noise * float(torch.quantile(round.updates.norms, 0.5))
        noisy = update + gaussian(round, self.name, update, std)
        return noisy.clamp(-LARGEST, LARGEST)  # noise scales with the updates, so the sum may overflow


def gaussian(round: Round, purpose: str, like: Tensor, std: float) -> Tensor:
    """(d,) normal noise from the server's generator, different for every round and purpose."""
    draw = (round.server or Server()).generator(purpose, round.index)
    noise = torch.randn(like.shape, generator=draw, dtype=torch.float32) * std
    return noise.to(like.device)
