"""MNIST and Fashion-MNIST from their idx files, compressed or not."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from .base import Dataset, Raw, image_dataset
from .files import REPLACE, Files, from_torchvision

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
UNSIGNED_BYTE = 0x08
#: The classes of Fashion-MNIST, as its authors name them.
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
#: Limit on a decompressed file, against decompression bombs; the largest of these files has 47 MB.
MAX_BYTES = 2**28


def load_mnist(data_root: str | Path | None = None) -> Dataset:
    """60,000 + 10,000 28×28 digits, 10 classes, from ``MNIST/raw``."""
    return _load("mnist", "MNIST", data_root)


def load_fashion_mnist(data_root: str | Path | None = None) -> Dataset:
    """60,000 + 10,000 28×28 pictures of clothes, 10 classes, from ``FashionMNIST/raw``."""
    return _load("fashion_mnist", "FashionMNIST", data_root, CLOTHES)


def _load(name: str, folder: str, data_root: str | Path | None, class_names: tuple[str, ...] = ()) -> Dataset:
    files = Files(name, f"{folder}/raw", NAMES, ("", ".gz"), from_torchvision(folder))
    paths = files.find(data_root)
    train, test = read_pair(paths[0], paths[1]), read_pair(paths[2], paths[3])
    return image_dataset(name, train, test, class_names=class_names)


def read_pair(image_path: Path, label_path: Path, classes: int = 10, limit: int | None = None) -> Raw:
    """28×28 images and their labels.

    Raises:
        DataError: a file is damaged, or they do not fit each other.
    """
    images, labels = read_idx(image_path, (28, 28), limit), read_idx(label_path, (), limit)
    if len(images) != len(labels):
        raise DataError(f"{image_path} holds {len(images)} images but {label_path} {len(labels)} labels")
    if labels.max() >= classes:
        raise DataError(
            f"{label_path} holds the label {labels.max()}; there are {classes} classes. {REPLACE}"
        )
    return images[:, None], labels


def read_idx(path: Path, sample_shape: tuple[int, ...], limit: int | None = None) -> NDArray[np.uint8]:
    """(N, *sample_shape) the array of bytes in an idx file of at most ``limit`` bytes unpacked.

    The format: two zero bytes, the type, the number of dimensions, each dimension as a big-endian
    32-bit integer, then the data.

    Raises:
        DataError: the file is damaged, truncated, or of another type or shape.
    """
    data = _content(path, limit or MAX_BYTES)
    shape = (-1, *sample_shape)
    header = 4 + 4 * len(shape)
    magic = bytes([0, 0, UNSIGNED_BYTE, len(shape)])
    if len(data) < header or data[:4] != magic:
        raise DataError(f"{path} starts with {data[:4].hex()}, not with {magic.hex()}; {REPLACE}")
    found = tuple(np.frombuffer(data, ">u4", len(shape), 4).tolist())
    if found[1:] != sample_shape or found[0] == 0:
        raise DataError(f"{path} says that it has shape {found}; (N, {_listed(sample_shape)}) is expected")
    if len(data) != header + math.prod(found):
        raise DataError(
            f"{path} has {len(data)} bytes, {header + math.prod(found)} are expected for {found}; {REPLACE}"
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(found)


def _listed(shape: tuple[int, ...]) -> str:
    return ", ".join(map(str, shape))


def _content(path: Path, limit: int) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read: {error}; {REPLACE}") from error
    if len(data) > limit:
        raise DataError(f"{path} has more than {limit >> 20} MiB unpacked; {REPLACE}")
    return data
