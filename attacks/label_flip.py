"""Label flipping: train on wrong labels."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

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
        test_side: also flip the labels of the malicious clients' test data, as FedSecurity does: of a random
            share m / N of the test set that accuracy and loss are measured on. The ASR's test set stays.

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
        self,
        mode: Literal["reverse", "next", "pairs"] = "reverse",
        pairs: dict[int, int] | None = None,
        test_side: bool = False,
    ) -> None:
        if mode not in ("reverse", "next", "pairs"):
            raise ParameterError(f"label_flip: mode is {mode!r}; use 'reverse', 'next' or 'pairs'")
        if (mode == "pairs") != bool(pairs):
            raise ParameterError(
                "label_flip: mode 'pairs' and the parameter pairs (source: target) go together, "
                f"got mode {mode!r} and pairs {pairs}"
            )
        self.mode = mode
        self.test_side = test_side
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
        return Samples(samples.pixels, self._flipped(samples.labels, view.num_classes))

    def poison_test(
        self, test: Samples, share: float, num_classes: int, generator: torch.Generator
    ) -> Samples:
        """With ``test_side``, a random share of the labels is flipped."""
        if not self.test_side:
            return test
        count = round(share * len(test.labels))
        hit = torch.randperm(len(test.labels), generator=generator)[:count].to(test.labels.device)
        labels = test.labels.clone()
        labels[hit] = self._flipped(labels[hit], num_classes)
        return Samples(test.pixels, labels)

    def _flipped(self, labels: Tensor, num_classes: int) -> Tensor:
        if self.mode == "reverse":
            return num_classes - 1 - labels
        if self.mode == "next":
            return (labels + 1) % num_classes
        flipped = labels.clone()
        for source, target in self.pairs.items():
            flipped[labels == source] = target
        return flipped

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
