"""Label flipping: train on wrong labels."""

from __future__ import annotations

from typing import Literal

import torch

from fedguard.contracts.attack import Attack, DataView, Trial
from fedguard.contracts.card import Card
from fedguard.contracts.data import Samples
from fedguard.core.errors import ParameterError


class LabelFlip(Attack):
    """l → L − 1 − l ("reverse"), l → (l + 1) mod L ("next"), or l → pairs[l] ("pairs").

    L is the number of classes. "reverse" and "next" change every sample and are untargeted. Pairs are flipped
    simultaneously (two classes can be swapped), other classes keep their labels, and the goal is targeted:
    ASR = (test samples of a source class that are classified as its target) / (test samples of the source
    classes), which for one pair is FedREDefense's definition.

    Args:
        mode: "reverse", "next" or "pairs".
        pairs: source → target labels, with mode "pairs" only; {0: 2} in FedREDefense, {3: 9, 2: 1} in
            FedSecurity.

    Raises:
        ParameterError: an unknown mode, pairs without mode "pairs" or the reverse, or a class paired with
            itself.

    Source: reverse: Fang et al., USENIX Security 2020, §4.1; next and one pair: Xie et al.,
    FedREDefense, ICML 2024, §6.1; several pairs: FedSecurity, KDD 2024, §3.2 and §5.
    """

    card = Card(
        "label_flip",
        "train on wrong labels: reversed, shifted, or chosen pairs",
        "Fang et al., USENIX Security 2020; Xie et al., FedREDefense, ICML 2024; FedSecurity, KDD 2024",
    )
    kind = "data"

    def __init__(
        self, mode: Literal["reverse", "next", "pairs"] = "reverse", pairs: dict[int, int] | None = None
    ) -> None:
        if mode not in ("reverse", "next", "pairs"):
            raise ParameterError(f"label_flip: mode is {mode!r}; use 'reverse', 'next' or 'pairs'")
        if (mode == "pairs") != bool(pairs):
            raise ParameterError(
                "label_flip: mode 'pairs' and the parameter pairs (source: target) go together, "
                f"got mode {mode!r} and pairs {pairs}"
            )
        self.mode = mode
        self.pairs = dict(pairs or {})
        same = [source for source, target in self.pairs.items() if source == target]
        if same:
            raise ParameterError(f"label_flip: class {same[0]} is paired with itself; leave it out")
        self.goal = "targeted" if mode == "pairs" else "untargeted"

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse pairs of classes that the data do not have."""
        wrong = [c for pair in self.pairs.items() for c in pair if not 0 <= c < num_classes]
        if wrong:
            raise ParameterError(
                f"label_flip: pairs name class {wrong[0]}, but the data have classes 0 to {num_classes - 1}"
            )

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """The same pixels with flipped labels."""
        labels = samples.labels
        if self.mode == "reverse":
            return Samples(samples.pixels, view.num_classes - 1 - labels)
        if self.mode == "next":
            return Samples(samples.pixels, (labels + 1) % view.num_classes)
        flipped = labels.clone()
        for source, target in self.pairs.items():
            flipped[labels == source] = target
        return Samples(samples.pixels, flipped)

    def trial(self, test: Samples, num_classes: int) -> Trial | None:
        """The test samples of the source classes, each with its target; None without pairs."""
        if not self.pairs:
            return None
        hit = torch.isin(test.labels, torch.tensor(list(self.pairs), device=test.labels.device))
        samples = test.take(hit.nonzero().flatten())
        target = samples.labels.clone()
        for source, label in self.pairs.items():
            target[samples.labels == source] = label
        return Trial(samples, target)
