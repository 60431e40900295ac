"""Inverting gradients: images whose gradient has the direction of the client's."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.passive import Leak, PassiveAttack, Reconstruction, loss_gradient

from ._checks import require_positive
from ._matching import count_labels


class InvertingGradients(PassiveAttack):
    """min_x 1 − cos(∇ℓ(x, y), ∇ℓ) + α · TV(x) by Adam on the signs of the gradient, x clamped to its bounds.

    Labels y are computed first, from the gradient of the last layer. TV is the mean absolute difference of
    neighboring pixels. The step size is divided by ten after 3/8, 5/8 and 7/8 of the iterations, as in the
    authors' code.

    Args:
        iterations: steps; 4,800 by default and up to 24,000 in the paper.
        lr: step size, in units of the normalized input; 0.1 in the paper.
        tv: α, the weight of the total variation; the paper tunes it per data set (1e-6 … 1e-1).
        restarts: the number of starts, of which the best counts.

    Raises:
        ParameterError: a parameter out of range.

    Source: Geiping et al., NeurIPS 2020, §4 (equation 4).
    """

    card = Card(
        "inverting_gradients",
        "images whose gradient has the direction of the update",
        "Geiping et al., Inverting Gradients, NeurIPS 2020",
    )

    check_with = MappingProxyType({"iterations": 5})

    def __init__(self, iterations: int = 4800, lr: float = 0.1, tv: float = 1e-4, restarts: int = 1) -> None:
        for name, value in (("iterations", iterations), ("restarts", restarts)):
            if value < 1:
                raise ParameterError(f"inverting_gradients: {name} is {value}; use at least 1")
        require_positive("inverting_gradients", "lr", lr)
        if not 0 <= tv < float("inf"):
            raise ParameterError(f"inverting_gradients: tv is {tv}; use a finite number of at least 0")
        self.iterations = iterations
        self.lr = lr
        self.tv = tv
        self.restarts = restarts

    def reconstruct(self, leak: Leak) -> Reconstruction:
        """The best of all starts."""
        labels = count_labels(leak, self.name)
        tries = [self._search(leak, labels, first=k == 0) for k in range(self.restarts)]
        return Reconstruction(min(tries, key=lambda found: found[0])[1], labels)

    def _search(self, leak: Leak, labels: Tensor, first: bool) -> tuple[float, Tensor]:
        start = leak.start[0].clone() if leak.start is not None and first else leak.noise()
        inputs = start.clamp(*leak.bounds).requires_grad_()
        target = leak.gradient
        optimizer = torch.optim.Adam([inputs], lr=self.lr)
        drops = [self.iterations * k // 8 for k in (3, 5, 7)]
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, drops, 0.1)
        best = (float("inf"), inputs.detach().clone())
        for _ in range(self.iterations):
            optimizer.zero_grad()
            gradient = loss_gradient(leak, inputs, labels)
            value = 1 - torch.cosine_similarity(gradient, target, dim=0)
            value = value + self.tv * total_variation(inputs)
            value.backward()  # type: ignore[no-untyped-call]
            if float(value.detach()) < best[0]:
                best = (float(value.detach()), inputs.detach().clone())
            if inputs.grad is not None:
                inputs.grad.sign_()
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                inputs.clamp_(*leak.bounds)
        return best


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of vertical plus that of horizontal neighbors; 0 for other inputs."""
    if images.ndim != 4:
        return images.new_zeros(())
    rows, columns = images.diff(dim=2).abs().mean(), images.diff(dim=3).abs().mean()
    return rows + columns
