"""DPOT: a trigger of few pixels, whose places and values are optimized in every round."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.card import Card
from fedguard.contracts.local_view import LocalView
from fedguard.core.errors import ParameterError
from fedguard.core.state import State

from ._backdoor import Backdoor
from ._checks import require_positive
from ._descent import device_of


class DPOT(Backdoor):
    """Places: the k pixels where Σ_x |∂ℓ(θ; x, ỹ)/∂x| is largest; values: argmin_δ Σ_x ℓ(θ; x ⊕ δ, ỹ).

    θ is the global model, ỹ the target, x ⊕ δ the image with these pixels, in all channels, replaced by δ. A
    trigger that the global model follows already makes poisoned data change the model little. In every round
    the first malicious client chooses the places anew on the images of all malicious clients that are not of
    the target class, starts δ from their mean there, and takes ``steps`` steps δ ← clip(δ − α sign ∇, 0, 1).
    All then train on replicas with the trigger, as many as clean samples. Only data are poisoned. Success is
    measured with the latest trigger.

    Args:
        target: the label that the trigger should cause.
        fraction: |R| / |D|, in (0, 1]; 1 makes half of the training data stamped, as in the paper.
        pixels: k, the number of pixels.
        steps: steps on their values.
        alpha: the step size α, in pixel values.

    Raises:
        ParameterError: a parameter out of range.

    Source: Zhang, Gong & Reiter, Concealing Backdoor Model Updates, arXiv 2405.06206, 2024: the abstract and
    public reviews, which describe the two steps and the share of poisoned data; the paper itself was not
    read. The score of a pixel, the number of pixels and the steps are FedGuard's.
    """

    card = Card(
        "dpot",
        "a trigger of few pixels, optimized in every round; poisons only data",
        "Zhang, Gong & Reiter, Concealing Backdoor Model Updates, arXiv 2405.06206, 2024",
    )
    check_with = MappingProxyType({"steps": 3})

    def __init__(
        self, target: int = 0, fraction: float = 1.0, pixels: int = 9, steps: int = 50, alpha: float = 0.05
    ) -> None:
        super().__init__(target, 1.0, fraction)
        for name, value in (("pixels", pixels), ("steps", steps)):
            if value < 1:
                raise ParameterError(f"dpot: {name} is {value}; use at least 1")
        require_positive("dpot", "alpha", alpha)
        self.pixels = pixels
        self.steps = steps
        self.alpha = alpha
        #: (k,) the places in a flattened channel; None before the first attacked round.
        self.places: Tensor | None = None
        #: (channels, k) δ.
        self.values: Tensor | None = None

    def extent(self) -> tuple[int, int]:
        """Any image will do."""
        return 1, 1

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse data other than images, more pixels than they have, or a target that does not exist."""
        super().check(input_shape, num_classes, n, m)
        most = input_shape[1] * input_shape[2]
        if self.pixels > most:
            raise ParameterError(f"dpot: pixels is {self.pixels}, but images have {most}")

    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """The current trigger, the same for all clients; none before the first attacked round."""
        if self.places is None or self.values is None:
            return pixels.clone()
        return _with(pixels, self.places, self.values.to(pixels))

    def prepare(self, view: LocalView) -> None:
        """Choose places and values against the global model."""
        model, device = view.model.eval(), device_of(view.model)
        samples = view.colluders
        others = samples.pixels[samples.labels != self.target].to(device)
        if not len(others):
            return
        wanted = torch.full((len(others),), self.target, device=device)

        def gradient(images: Tensor, free: Tensor) -> Tensor:
            loss = F.cross_entropy(model(view.normalize(images)), wanted, reduction="sum")
            (found,) = torch.autograd.grad(loss, free)
            return found

        free = others.clone().requires_grad_()
        scores = gradient(free, free).abs().sum((0, 1)).flatten()
        places = scores.argsort(descending=True, stable=True)[: self.pixels].sort().values
        values = others.flatten(2)[:, :, places].mean(0)
        for _ in range(self.steps):
            moved = values.clone().requires_grad_()
            step = gradient(_with(others, places, moved), moved).sign()
            values = (values - self.alpha * step).clamp(0, 1)
        self.places, self.values = places.cpu(), values.cpu()

    def state_dict(self) -> State:
        """The trigger."""
        if self.places is None or self.values is None:
            return {}
        return {"places": self.places, "values": self.values}

    def load_state_dict(self, state: State) -> None:
        """Restore the trigger."""
        self.places, self.values = state.get("places"), state.get("values")


def _with(pixels: Tensor, places: Tensor, values: Tensor) -> Tensor:
    """(N, channels, height, width) a copy with these values at these places of every channel."""
    stamped = pixels.flatten(2).clone()
    stamped[:, :, places.to(pixels.device)] = values
    return stamped.view(pixels.shape)
