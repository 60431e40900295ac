"""3DFed's noise masks: noise on rows of the output layer that cancels within a group of colluders."""

from __future__ import annotations

import torch
from torch import Tensor

from ._descent import descend

#: Steps of SGD on a group's masks, and their settings.
STEPS, LR, MOMENTUM, WEIGHT_DECAY = 30, 0.1, 0.9, 5e-4
#: How fast λ grows with ‖Σ_i m_i‖.
ASCENT = 0.1
#: Factors of the terms of a mask's loss.
ENERGY, NORM = 0.1, 0.01


def drawn_masks(update: Tensor, size: int, std: float, generator: torch.Generator) -> Tensor:
    """(size, rows, columns) noise from N(0, std²) for a group, centered so that it sums to 0.

    Args:
        update: (rows, columns) the backdoor's update of the rows.
        size: the colluders of the group.
        std: of the noise.
        generator: the attacker's randomness.
    """
    noise = std * torch.randn((size, *update.shape), generator=generator)
    return noise - noise.mean(0)


def mask_loss(masks: Tensor, update: Tensor, alpha: float, multiplier: float) -> Tensor:
    """Σ_i [α Σ_j 0.1/‖u_j + m_ij‖₁ + (1 − α) 0.01 ‖m_i‖₂] + λ 0.01 ‖Σ_i m_i‖₂, divided by 1 + λ.

    Its derivative by m_i is that of colluder i's own loss. The first term enlarges the change of each row j
    of the output layer, so that the target's row does not stand out.

    Args:
        masks: (size, rows, columns) m.
        update: (rows, columns) u.
        alpha: α.
        multiplier: λ.
    """
    energies = (update + masks).abs().sum(2)
    lengths: Tensor = torch.linalg.vector_norm(masks.flatten(1), dim=1)
    together: Tensor = torch.linalg.vector_norm(masks.sum(0))
    own = alpha * ENERGY * (1 / energies).sum() + (1 - alpha) * NORM * lengths.sum()
    return (own + multiplier * NORM * together) / (1 + multiplier)


def optimized_masks(masks: Tensor, update: Tensor, alpha: float) -> Tensor:
    """The masks after 30 steps of SGD; after each, λ grows by 0.1 ‖Σ_i m_i‖₂ from 1.

    A group of one sends no mask, as nobody would cancel it.
    """
    if len(masks) < 2:
        return torch.zeros_like(masks)
    free, multiplier = torch.nn.Parameter(masks.clone()), 1.0

    def loss(step: Tensor) -> Tensor:
        nonlocal multiplier
        if step > 0:
            multiplier += ASCENT * float(free.detach().sum(0).norm())
        return mask_loss(free, update, alpha, multiplier)

    descend([free], torch.arange(STEPS), loss, LR, MOMENTUM, WEIGHT_DECAY)
    return free.detach()
