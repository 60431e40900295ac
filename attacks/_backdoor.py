"""The base of backdoors with a trigger in the inputs: train on stamped replicas, scale the update."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, DataView, Trial, UpdateView
from fedguard.contracts.data import Samples
from fedguard.core.errors import ParameterError

from ._checks import require_positive


class Backdoor(Attack):
    """Train on D ∪ {(stamped x, target) : x ∈ R ⊆ D}, then send scale · u_i; subclasses define the stamp.

    Args:
        target: the label that the trigger should cause.
        scale: factor on the update; None if the subclass computes it per round.
        fraction: |R| / |D|, in (0, 1]; R is drawn at random.
    """

    kind = "backdoor"
    goal = "targeted"

    def __init__(self, target: int, scale: float | None, fraction: float) -> None:
        if target < 0:
            raise ParameterError(f"{self.name}: target is {target}; labels start at 0")
        if scale is not None:
            require_positive(self.name, "scale", scale)
        if not 0 < fraction <= 1:
            raise ParameterError(f"{self.name}: fraction is {fraction}; use a share in (0, 1]")
        self.target = target
        self.scale = scale
        self.fraction = fraction

    @abstractmethod
    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """A copy of the pixels with the trigger of one malicious client, or with the whole trigger (None)."""

    @abstractmethod
    def extent(self) -> tuple[int, int]:
        """Height and width of the trigger."""

    def takes_trigger(self, pixels: Tensor) -> Tensor:
        """(N,) True for the inputs that a stamp changes; all of them, unless a subclass says otherwise."""
        return torch.ones(len(pixels), dtype=torch.bool, device=pixels.device)

    def factor(self, view: UpdateView) -> float:
        """The factor on the update in this round."""
        return 1.0 if self.scale is None else self.scale

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse data other than images, a trigger that does not fit, or a target that does not exist."""
        if len(input_shape) != 3:
            raise ParameterError(
                f"{self.name}: a pixel trigger needs images (channels, height, width), "
                f"but one input has shape {tuple(input_shape)}"
            )
        height, width = self.extent()
        if height > input_shape[1] or width > input_shape[2]:
            raise ParameterError(
                f"{self.name}: a trigger of {height} x {width} pixels does not fit images of "
                f"{input_shape[1]} x {input_shape[2]}"
            )
        if self.target >= num_classes:
            raise ParameterError(
                f"{self.name}: target is {self.target}, but the data have classes 0 to {num_classes - 1}"
            )

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """The local data, followed by replicas with the trigger and the target label."""
        usable = self.takes_trigger(samples.pixels).nonzero().flatten()
        count = min(len(usable), max(1, round(self.fraction * len(samples.labels))))
        chosen = torch.randperm(len(usable), generator=view.generator)[:count].to(usable.device)
        replicas = samples.take(usable[chosen])
        return Samples(
            torch.cat([samples.pixels, self.stamp(replicas.pixels, view.rank)]),
            torch.cat([samples.labels, torch.full_like(replicas.labels, self.target)]),
        )

    def craft(self, view: UpdateView) -> Tensor:
        """Scale the trained update."""
        return self.factor(view) * view.own_updates

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """Test inputs of other classes with the whole trigger; predicting the target label is a success.

        None if there are no such inputs.
        """
        others = test.take(
            ((test.labels != self.target) & self.takes_trigger(test.pixels)).nonzero().flatten()
        )
        if not len(others.labels):
            return None
        stamped = Samples(self.stamp(others.pixels, None), others.labels)
        return Trial(stamped, torch.full_like(others.labels, self.target))


def square(pixels: Tensor, side: int) -> Tensor:
    """A copy with a white square in the bottom-right corner, all channels."""
    stamped = pixels.clone()
    stamped[..., -side:, -side:] = 1.0
    return stamped


class SquareBackdoor(Backdoor):
    """A backdoor whose trigger is a white square in the bottom-right corner, added before normalization.

    Args:
        target: the label that the trigger should cause.
        scale: factor on the update; None if the subclass computes it per round.
        fraction: |R| / |D|, in (0, 1].
        patch: side of the square in pixels.
    """

    def __init__(self, target: int, scale: float | None, fraction: float, patch: int) -> None:
        super().__init__(target, scale, fraction)
        if patch < 1:
            raise ParameterError(f"{self.name}: patch is {patch}; use at least 1 pixel")
        self.patch = patch

    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """The same square for all clients."""
        return square(pixels, self.patch)

    def extent(self) -> tuple[int, int]:
        """The side of the square."""
        return self.patch, self.patch
