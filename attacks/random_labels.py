"""Random labels: train on uninformative labels."""

from __future__ import annotations

import torch

from fedguard.contracts.attack import Attack, DataView
from fedguard.contracts.card import Card
from fedguard.contracts.data import Samples
from fedguard.core.errors import ParameterError


class RandomLabels(Attack):
    """l' ~ uniform over all L classes, independently, for a random share of every malicious client's samples.

    The true label may be drawn, too (with probability 1/L), so that the new labels carry no information. This
    models clients with noisy labels; ``label_flip`` has structured flips.

    Args:
        fraction: the share of samples that get a random label, in (0, 1]; at least one sample.

    Raises:
        ParameterError: a fraction out of range.

    Source: FedGuard; a common baseline of data poisoning.
    """

    card = Card("random_labels", "train on labels drawn at random", "FedGuard")
    kind = "data"

    def __init__(self, fraction: float = 1.0) -> None:
        if not 0 < fraction <= 1:
            raise ParameterError(f"random_labels: fraction is {fraction}; use a share in (0, 1]")
        self.fraction = fraction

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """The same pixels with new labels for the chosen samples."""
        labels = samples.labels.clone()
        n = len(labels)
        count = min(n, max(1, round(self.fraction * n)))
        chosen = torch.randperm(n, generator=view.generator)[:count]
        drawn = torch.randint(view.num_classes, (count,), generator=view.generator)
        labels[chosen.to(labels.device)] = drawn.to(labels)
        return Samples(samples.pixels, labels)
