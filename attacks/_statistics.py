"""Statistics that several model-poisoning attacks share, in float64."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fedguard.contracts.attack import UpdateView
from fedguard.geometry.updates import Updates


def mean_and_std(updates: Tensor | Updates) -> tuple[Tensor, Tensor]:
    """Per coordinate μ_j and σ_j = √(1/k Σ_i (u_ij − μ_j)²) of (k, d) updates, float64.

    The population form (1/k) is the maximum-likelihood fit of a normal distribution, and the only form
    defined for a single update (σ = 0).
    """
    parts = [(block.mean(0), block.std(0, correction=0)) for block in _blocks(updates)]
    return torch.cat([mean for mean, _ in parts]), torch.cat([std for _, std in parts])


def mean(updates: Tensor | Updates) -> Tensor:
    """Per coordinate μ_j of (k, d) updates, float64; with the bits of :func:`mean_and_std`."""
    return torch.cat([block.mean(0) for block in _blocks(updates)])


def _blocks(updates: Tensor | Updates) -> Iterator[Tensor]:
    return (updates if isinstance(updates, Updates) else Updates(updates)).blocks()


def along(updates: Updates, mean: Tensor, direction: Tensor) -> Tensor:
    """(k,) ⟨u_i − mean, direction⟩ for (d,) float64 vectors, summed in float64."""
    total = direction.new_zeros(updates.n)
    start = 0
    for block in updates.blocks():
        stop = start + block.shape[1]
        total += (block - mean[start:stop]) @ direction[start:stop]
        start = stop
    return total


def by_all(update: Tensor, view: UpdateView) -> Tensor:
    """(m, d) float32: the same (d,) update for every malicious client."""
    return update.float().repeat(view.num_malicious, 1)
