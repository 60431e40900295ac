"""What an attack sees on a malicious client's own computer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .data import LabeledData, Samples
from .local_training import LocalTraining


@dataclass(frozen=True)
class LocalView:
    """What an attack sees before one malicious client trains, besides its data.

    Attributes:
        index: the round.
        model: the global model, with its statistics: a copy that may be changed.
        samples: the client's own samples, before poisoning, pixels in [0, 1].
        data: what it is about to train on: poisoned, and normalized as the model wants it.
        normalize: pixels → the model's inputs.
        training: the settings of its local training.
        num_classes: the number of labels.
        generator: the attacker's randomness for this client and round.
        colluding: the other malicious clients' samples, before poisoning; given to ``Attack.prepare``.
    """

    index: int
    model: nn.Module
    samples: Samples
    data: LabeledData
    normalize: Callable[[Tensor], Tensor]
    training: LocalTraining
    num_classes: int
    generator: torch.Generator
    colluding: Callable[[], Sequence[Samples]] = tuple

    @property
    def colluders(self) -> Samples:
        """The samples of all malicious clients of the round, this one's first."""
        everyone = [self.samples, *self.colluding()]
        pixels, labels = zip(*everyone, strict=True)
        return Samples(torch.cat(pixels), torch.cat(labels))
