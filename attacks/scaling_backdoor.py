"""The scaling backdoor: learn a trigger, then send the update magnified."""

from __future__ import annotations

import torch
from torch import Tensor

from fedguard.attack import Attack, DataView, Samples, Trial, UpdateView
from fedguard.card import Card
from fedguard.errors import ParameterError

from ._checks import require_positive


class ScalingBackdoor(Attack):
    """Train on D ∪ {(x with trigger, target) : x ∈ R ⊆ D}, then send scale · u_i.

    The trigger is a white square in the bottom-right corner, put on the pixels before normalisation. ASR
    is measured on test images with the trigger that are not of the target class anyway.

    Args:
        target: the label that the trigger should cause; 0 in FedREDefense.
        scale: factor on the update; 3 in FedREDefense.
        fraction: |R| / |D|, in (0, 1]; R is drawn at random. FedREDefense replicates all local data (1).
        patch: side of the square in pixels, all channels; FedREDefense does not describe its trigger.

    Raises:
        ParameterError: a parameter out of range.

    Source: Bagdasaryan et al., AISTATS 2020; setting of Xie et al., FedREDefense, ICML 2024, App. A.2.
    """

    card = Card(
        "scaling_backdoor",
        "plant a pixel trigger and magnify the update",
        "Bagdasaryan et al., How to Backdoor Federated Learning, AISTATS 2020",
    )
    kind = "backdoor"
    goal = "targeted"

    def __init__(self, target: int = 0, scale: float = 3.0, fraction: float = 1.0, patch: int = 3) -> None:
        if target < 0:
            raise ParameterError(f"scaling_backdoor: target is {target}; labels start at 0")
        require_positive("scaling_backdoor", "scale", scale)
        if not 0 < fraction <= 1:
            raise ParameterError(f"scaling_backdoor: fraction is {fraction}; use a share in (0, 1]")
        if patch < 1:
            raise ParameterError(f"scaling_backdoor: patch is {patch}; use at least 1 pixel")
        self.target = target
        self.scale = scale
        self.fraction = fraction
        self.patch = patch

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse data that are no images, a patch that does not fit, or a target that does not exist."""
        if len(input_shape) != 3:
            raise ParameterError(
                f"scaling_backdoor: a pixel trigger needs images (channels, height, width), "
                f"but one input has shape {tuple(input_shape)}"
            )
        if self.patch > min(input_shape[1:]):
            raise ParameterError(
                f"scaling_backdoor: a patch of {self.patch} pixels does not fit images of "
                f"{input_shape[1]} x {input_shape[2]}"
            )
        if self.target >= num_classes:
            raise ParameterError(
                f"scaling_backdoor: target is {self.target}, but the data have classes 0 to {num_classes - 1}"
            )

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """The local data, followed by replicas with the trigger and the target label."""
        n = len(samples.labels)
        count = min(n, max(1, round(self.fraction * n)))
        chosen = torch.randperm(n, generator=view.generator)[:count].to(samples.labels.device)
        replicas = samples.take(chosen)
        return Samples(
            torch.cat([samples.pixels, self._stamp(replicas.pixels)]),
            torch.cat([samples.labels, torch.full_like(replicas.labels, self.target)]),
        )

    def craft(self, view: UpdateView) -> Tensor:
        """Magnify what training gave."""
        return self.scale * view.own_updates

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """Test images of other classes, with the trigger; the target label counts as success."""
        others = test.take((test.labels != self.target).nonzero().flatten())
        stamped = Samples(self._stamp(others.pixels), others.labels)
        return Trial(stamped, torch.full_like(others.labels, self.target))

    def _stamp(self, pixels: Tensor) -> Tensor:
        stamped = pixels.clone()
        stamped[..., -self.patch :, -self.patch :] = 1.0
        return stamped
