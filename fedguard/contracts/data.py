"""Samples and labels: as clients store them, and as models take them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class LabeledData(NamedTuple):
    """Inputs as the model takes them (already normalized), and their labels.

    Labels are classes, (N,) int64, or for several labels per sample and for regression (N, K) float32.
    For causal texts they are the next tokens, (N, L) int64, −1 where none is to be predicted.
    """

    inputs: Tensor
    labels: Tensor


class Share(NamedTuple):
    """Some rows of a larger data set, without a copy."""

    data: LabeledData
    rows: Tensor


class Samples(NamedTuple):
    """A client's samples before normalization: pixels in [0, 1] (or raw features), integer labels."""

    pixels: Tensor
    labels: Tensor

    def take(self, index: Tensor) -> Samples:
        """Some of the samples."""
        return Samples(self.pixels[index], self.labels[index])
