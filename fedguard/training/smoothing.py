"""Predictions of a model whose parameters are smoothed with noise."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..core.errors import ParameterError
from ..core.seeds import generator
from .parameters import predict


def smoothed_votes(
    model: nn.Module,
    vector: Tensor,
    inputs: Tensor,
    *,
    bound: float,
    noise: float,
    draws: int = 1000,
    seed: int = 0,
) -> Tensor:
    """(n, classes) how many of M draws of clip(w) + N(0, σ² I) predict each label.

    With the stage "crfl" the final model is clipped but has no noise; this is the noise of its last round,
    M times. :func:`fedguard.metrics.certified_radius` takes the result.

    Args:
        model: the architecture; left unchanged, used in eval mode.
        vector: (d,) w, its parameters.
        inputs: (n, …) normalized samples.
        bound: ρ of the last round.
        noise: σ at test time.
        draws: M.
        seed: of the noise.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xie et al., CRFL, ICML 2021, Algorithm 2.
    """
    for name, value in (("bound", bound), ("noise", noise)):
        if not 0 < value < math.inf:
            raise ParameterError(f"{name} is {value}; use a finite number above 0")
    if draws < 1:
        raise ParameterError(f"draws is {draws}; use at least 1")
    norm = float(vector.double().norm())
    clipped = vector * min(1.0, bound / norm) if norm > 0 else vector
    draw = generator(seed, "smoothed_votes")
    votes = torch.zeros(0)
    for k in range(draws):
        shift = torch.randn(clipped.shape, generator=draw).to(clipped) * noise
        logits = predict(model, clipped + shift, inputs)
        cast = torch.nn.functional.one_hot(logits.argmax(1), logits.shape[1])
        votes = votes + cast if k else cast
    return votes
