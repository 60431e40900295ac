"""Neurotoxin: a backdoor in parameters that honest clients rarely change."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fedguard.contracts.attack import Adjust, TrainView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError

from ._backdoor import SquareBackdoor


class Neurotoxin(SquareBackdoor):
    """Every step of training on the stamped data is projected off the top-k coordinates of the last update.

    The attacker takes the last change of the global model, w_{t−1} − w_{t−2}, as a prediction of honest
    updates. It sets its gradients to zero on the k coordinates of largest magnitude (over all parameters
    together), so that later honest updates overwrite less of the backdoor. Nothing is projected in the first
    round. The trigger is a white square in the bottom-right corner, added before normalization.

    Args:
        target: the label that the trigger should cause.
        scale: factor on the update.
        fraction: |R| / |D|, in (0, 1]: the share of local samples with a stamped replica.
        patch: side of the square in pixels, all channels.
        top: k / d, the share of coordinates to avoid, in [0, 1).

    Raises:
        ParameterError: a parameter out of range.

    Source: Zhang et al., ICML 2022, Algorithm 1; k = 5 % of the coordinates.
    """

    card = Card(
        "neurotoxin",
        "a backdoor in parameters that honest clients rarely change",
        "Zhang et al., Neurotoxin: Durable Backdoors, ICML 2022",
    )

    def __init__(
        self,
        target: int = 0,
        scale: float = 1.0,
        fraction: float = 1.0,
        patch: int = 3,
        top: float = 0.05,
    ) -> None:
        super().__init__(target, scale, fraction, patch)
        if not 0 <= top < 1:
            raise ParameterError(f"neurotoxin: top is {top}; use a share in [0, 1)")
        self.top = top

    def adjust(self, view: TrainView) -> Adjust | None:
        """Project off the coordinates that changed most."""
        change = (view.global_params - view.previous_params).abs()
        count = math.floor(self.top * len(change))
        if count == 0 or not change.any():
            return None
        allowed = torch.ones_like(change)
        allowed[change.topk(count).indices] = 0
        parts = torch.split(allowed, [math.prod(shape) for shape in view.shapes])
        masks = [part.view(shape) for part, shape in zip(parts, view.shapes, strict=True)]

        def project(gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(g * mask for g, mask in zip(gradients, masks, strict=True))

        return project
