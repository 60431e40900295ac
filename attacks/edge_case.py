"""The edge-case backdoor: rare samples with a wrong label."""

from __future__ import annotations

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, DataView, Trial, UpdateView
from fedguard.contracts.card import Card
from fedguard.contracts.data import Samples
from fedguard.core.errors import ParameterError

from ._checks import require_positive
from ._edge_files import edge_images


class EdgeCase(Attack):
    """Train on D mixed with rare samples that carry the target label; send scale · u_i, with ‖u_i‖ bounded.

    The paper takes its edge cases from another source (Southwest planes, old scripts): give them as ``file``.
    Every attacker draws from all of its training images, and success is the share of its test images that
    are classified as the target. Without a file, edge cases are the tail of the data set itself: the samples
    of the source classes that are farthest, in pixels, from the mean of their class. The attacker then takes
    them from its own samples, and success is measured on the tail of the test set.

    The update is shortened to ``bound`` before it is scaled, which is the paper's projection, applied once at
    the end of training.

    Args:
        target: the label that edge cases should get.
        source: the class of the edge cases; None takes every class but the target.
        tail: the share of each class that counts as its tail, in (0, 1].
        fraction: the share of edge cases in what the attacker trains on, in (0, 1).
        scale: factor on the update; 1 sends it as it is.
        bound: the largest norm of the update before scaling; None sets no bound.
        file: an .npz file with the arrays ``train`` and ``test`` of images in the size of the data (uint8, or
            numbers in [0, 1]); then ``source`` and ``tail`` mean nothing.

    Raises:
        ParameterError: a parameter out of range, a source class that is the target, or a file that cannot be
            read or does not fit.

    Source: Wang et al., Attack of the Tails, NeurIPS 2020, §4 (black-box, PGD and model replacement).
    """

    card = Card(
        "edge_case",
        "rare samples of a class get the target label",
        "Wang et al., Attack of the Tails, NeurIPS 2020",
    )
    kind = "backdoor"
    goal = "targeted"

    def __init__(
        self,
        target: int = 1,
        source: int | None = 7,
        tail: float = 0.1,
        fraction: float = 0.2,
        scale: float = 1.0,
        bound: float | None = None,
        file: str | None = None,
    ) -> None:
        if target < 0 or (source is not None and (source < 0 or source == target)):
            raise ParameterError(
                f"edge_case: target is {target} and source is {source}; use two different labels, 0 or more"
            )
        if not 0 < tail <= 1:
            raise ParameterError(f"edge_case: tail is {tail}; use a share in (0, 1]")
        if not 0 < fraction < 1:
            raise ParameterError(f"edge_case: fraction is {fraction}; use a share in (0, 1)")
        require_positive("edge_case", "scale", scale)
        if bound is not None:
            require_positive("edge_case", "bound", bound)
        self.target = target
        self.source = source
        self.tail = tail
        self.fraction = fraction
        self.scale = scale
        self.bound = bound
        self.file = file

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse classes that do not exist, and a file that does not fit."""
        for name in ("target",) if self.file else ("target", "source"):
            label = getattr(self, name)
            if label is not None and label >= num_classes:
                raise ParameterError(
                    f"edge_case: {name} is {label}, but the data have classes 0 to {num_classes - 1}"
                )
        for name, images in edge_images(self.file)._asdict().items() if self.file else ():
            if tuple(images.shape[1:]) != tuple(input_shape):
                raise ParameterError(
                    f"edge_case: file {self.file}: {name} has images of shape {tuple(images.shape[1:])}, "
                    f"the data {tuple(input_shape)}"
                )

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """The local data and random draws from its edge cases, up to the fraction.

        A client without a sample of the source class has no edge case and trains honestly.
        """
        rare = edge_images(self.file).train if self.file else samples.pixels[self._edge_cases(samples)]
        if len(rare) == 0:
            return samples
        n = len(samples.labels)
        count = max(1, round(self.fraction / (1 - self.fraction) * n))
        drawn = rare.to(samples.pixels)[torch.randint(len(rare), (count,), generator=view.generator)]
        wrong = torch.full_like(samples.labels[:1], self.target).expand(count)
        return Samples(torch.cat([samples.pixels, drawn]), torch.cat([samples.labels, wrong]))

    def craft(self, view: UpdateView) -> Tensor:
        """Shorten to the bound, then scale."""
        updates = view.own_updates
        if self.bound is not None:
            norms = updates.double().norm(dim=1)
            updates = updates * (self.bound / norms.clamp(min=self.bound)).to(updates.dtype)[:, None]
        return self.scale * updates

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """The edge cases of the test set or the file; predicting the target label is a success."""
        if self.file:
            images = edge_images(self.file).test.to(test.pixels)
            target = torch.full((len(images),), self.target, dtype=test.labels.dtype, device=images.device)
            return Trial(Samples(images, _others(target, num_classes)), target)
        rare = test.take(self._edge_cases(test))
        return Trial(rare, torch.full_like(rare.labels, self.target))

    def _edge_cases(self, samples: Samples) -> Tensor:
        """Positions of the samples in the tail of their class, at least one of every source class present."""
        classes = torch.unique(samples.labels).tolist() if self.source is None else [self.source]
        found = [self._tail_of(samples, label) for label in classes if label != self.target]
        return torch.cat(found) if found else samples.labels.new_empty(0)

    def _tail_of(self, samples: Samples, label: int) -> Tensor:
        members = (samples.labels == label).nonzero().flatten()
        if len(members) == 0:
            return members
        pixels = samples.pixels[members].flatten(1).double()
        distance = (pixels - pixels.mean(0)).square().sum(1)
        count = max(1, round(self.tail * len(members)))
        return members[distance.argsort(descending=True, stable=True)[:count]]


def _others(target: Tensor, num_classes: int) -> Tensor:
    """A label other than the target: what the images of another source show is not a class of the data."""
    return (target + 1) % num_classes
