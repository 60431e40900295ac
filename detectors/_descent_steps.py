"""Steps of SGD and Adam on rows that can leave.

Not with ``torch.optim``, whose first optimizer takes every process a second or two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor


class Steps:
    """SGD with momentum, or Adam, for tensors whose first dimension is the client.

    The formulas and the bits are those of ``torch.optim.SGD(momentum=…)`` and
    ``torch.optim.Adam(betas=(0.9, 0.999))``.

    Args:
        kind: "sgd" or "adam".
        leaves: the tensors.
        rates: the learning rate of each.
        momentum: of SGD.
    """

    def __init__(
        self, kind: Literal["sgd", "adam"], leaves: list[Tensor], rates: Sequence[float], momentum: float
    ) -> None:
        self.kind, self.leaves, self.rates, self.momentum = kind, leaves, rates, momentum
        self.count = 0
        self.means = [torch.zeros_like(leaf) for leaf in leaves]
        self.squares = [torch.zeros_like(leaf) for leaf in leaves] if kind == "adam" else []

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor]) -> None:
        """Move every leaf along its gradient."""
        self.count += 1
        for k, (leaf, gradient, rate) in enumerate(zip(self.leaves, gradients, self.rates, strict=True)):
            if self.kind == "adam":
                self._adam(k, leaf, gradient, rate)
            else:
                self.means[k].mul_(self.momentum).add_(gradient)
                leaf.add_(self.means[k], alpha=-rate)

    def _adam(self, k: int, leaf: Tensor, gradient: Tensor, rate: float) -> None:
        mean = self.means[k].lerp_(gradient, 1 - 0.9)
        square = self.squares[k].mul_(0.999).addcmul_(gradient, gradient, value=1 - 0.999)
        scale = square.sqrt().div_((1 - 0.999**self.count) ** 0.5).add_(1e-8)
        leaf.addcdiv_(mean, scale, value=-rate / (1 - 0.9**self.count))

    def keep(self, rows: list[int]) -> None:
        """Let the other rows leave."""
        for part in (*self.leaves, *self.means, *self.squares):
            part.data = part.data[rows]
