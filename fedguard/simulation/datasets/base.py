"""Data sets: raw samples, and the constants that normalize them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...contracts.data import LabeledData, Samples
from ...core.deprecation import Renamed

#: What the labels of a table or of arrays are: a class, several yes/no answers at once, or real numbers.
Task = Literal["classification", "multilabel", "regression"]
#: What the labels of any data set are: these, or the next token of each token of a text.
AnyTask = Literal["classification", "multilabel", "regression", "causal"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set before normalization, so that attacks can work on pixels.

    Attributes:
        name: the name in the catalogue.
        train: pixels (N, C, H, W) in [0, 1], or raw features (N, F), float32; labels (N,) int64 for
            classification, else (N, K) float32 (multilabel: 0 and 1). Texts are token numbers (N, L),
            float32, −1 for padding; causal labels are the next tokens, (N, L) int64, −1 where none is to be
            predicted.
        test: the same for testing.
        num_classes: labels are 0 … num_classes − 1; for other tasks K, the number of the model's outputs; for
            causal texts the size of the vocabulary.
        mean: of the training set, per channel or per feature, or one number for all.
        std: likewise (population standard deviation).
        clients: (N,) the natural client of every training sample, numbered from 0; None if there are none.
        client_names: the names of the natural clients.
        task: what the labels are.
        class_names: the names of the classes, or of the labels of a multilabel task; empty if unknown.
    """

    name: str
    train: Samples
    test: Samples
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clients: NDArray[np.int64] | None = None
    client_names: tuple[str, ...] = ()
    task: AnyTask = "classification"
    class_names: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one sample, say (1, 28, 28)."""
        return tuple(self.train.pixels.shape[1:])

    @cached_property
    def training_set(self) -> LabeledData:
        """All training samples, normalized for the model; shared between processes if the data set is."""
        return self.labeled(self.train)

    @cached_property
    def test_set(self) -> LabeledData:
        """All test samples, normalized for the model."""
        return self.labeled(self.test)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything that results depend on: samples, labels, constants, clients and the task."""
        digest = hashlib.sha256()
        arrays = {
            f"{part}.{name}": tensor.numpy()
            for part in ("train", "test")
            for name, tensor in getattr(self, part)._asdict().items()
        }
        if self.clients is not None:
            arrays["clients"] = self.clients
        facts = [self.num_classes, self.task, self.mean, self.std, self.client_names]
        digest.update(json.dumps(facts).encode())
        for name, array in arrays.items():
            digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()

    normalise = Renamed("normalize")

    def normalize(self, pixels: Tensor) -> Tensor:
        """(x − mean) / std per channel (or feature), a new tensor.

        Args:
            pixels: (N, C, H, W) or (N, F).
        """
        shape = (-1,) + (1,) * (pixels.ndim - 2)
        centerd = pixels - pixels.new_tensor(self.mean).view(shape)
        return centerd.div_(pixels.new_tensor(self.std).view(shape))

    labelled = Renamed("labeled")

    def labeled(self, samples: Samples) -> LabeledData:
        """Samples, normalized for the model."""
        return LabeledData(self.normalize(samples.pixels), samples.labels)


#: uint8 images (N, C, H, W) and their labels (N,).
Raw = tuple[NDArray[np.uint8], NDArray[np.integer]]


def image_dataset(
    name: str,
    train: Raw,
    test: Raw,
    num_classes: int = 10,
    white: int = 255,
    class_names: tuple[str, ...] = (),
) -> Dataset:
    """A data set of integer images; ``white`` is the brightest value.

    Mean and standard deviation come from exact integer sums over the training images, so they are
    identical on every machine.
    """
    mean, std = image_constants(train[0], white)
    parts = _samples(train, white), _samples(test, white)
    return Dataset(name, *parts, num_classes, mean, std, class_names=class_names)


def image_constants(
    images: NDArray[np.uint8], white: int = 255
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of images (N, C, H, W); a constant channel is divided by 1."""
    count = images.size // images.shape[1]
    total = images.sum(axis=(0, 2, 3), dtype=np.int64)
    squares = np.einsum("nchw,nchw->c", images, images, dtype=np.int64, casting="unsafe")
    mean = total / count
    std = np.sqrt(squares / count - mean**2)
    return tuple((mean / white).tolist()), tuple((np.where(std > 0, std, white) / white).tolist())


def unit_pixels(images: NDArray[np.uint8], white: int = 255) -> Tensor:
    """Images as float32 in [0, 1]."""
    return torch.from_numpy(images.astype(np.float32)).div_(white)


def _samples(raw: Raw, white: int) -> Samples:
    return Samples(unit_pixels(raw[0], white), torch.from_numpy(raw[1].astype(np.int64)))
