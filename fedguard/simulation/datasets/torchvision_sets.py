"""Data sets of torchvision by their class's name, ``torchvision:EMNIST``.

Files that torchvision would unpickle (CIFAR) or ``torch.load`` are read here instead, by readers that build
nothing but arrays.
"""

from __future__ import annotations

import os
import string
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.errors import DataError, ParameterError
from ...core.params import nearest
from ..parts import Maker
from .arrays import Arrays, from_arrays
from .base import Dataset, image_dataset
from .cifar10 import load_cifar10, read_batch, read_pickle
from .files import VARIABLE, Files, cache_root, from_torchvision
from .image_folder import pixels
from .mnist import NAMES, load_fashion_mnist, load_mnist, read_pair
from .split import TEST_SHARE

Emnist = Literal["balanced", "byclass", "bymerge", "digits", "letters", "mnist"]
CLASSES = {"balanced": 47, "byclass": 62, "bymerge": 47, "digits": 10, "letters": 26, "mnist": 10}
#: In EMNIST's merged classes, these lower-case letters count as their capitals.
_MERGED = frozenset("cijklmopsuvwxyz")
#: The largest of EMNIST's files has 548 MB.
MAX_BYTES = 2**30

#: What makes torchvision's class return its training and its test samples; None where it has no test
#: samples. All of them are pictures with one label each.
OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "SVHN": ({"split": "train"}, {"split": "test"}),
    "USPS": ({"train": True}, {"train": False}),
    "STL10": ({"split": "train"}, {"split": "test"}),
    "GTSRB": ({"split": "train"}, {"split": "test"}),
    "DTD": ({"split": "train"}, {"split": "test"}),
    "Flowers102": ({"split": "train"}, {"split": "test"}),
    "Food101": ({"split": "train"}, {"split": "test"}),
    "OxfordIIITPet": ({"split": "trainval"}, {"split": "test"}),
    "FGVCAircraft": ({"split": "trainval"}, {"split": "test"}),
    "Country211": ({"split": "train"}, {"split": "test"}),
    "Imagenette": ({"split": "train", "size": "160px"}, {"split": "val", "size": "160px"}),
    "EuroSAT": ({}, None),
}


def load_kmnist(data_root: str | Path | None = None) -> Dataset:
    """60,000 + 10,000 28×28 Japanese characters, 10 classes, from ``KMNIST/raw``."""
    files = Files("torchvision:KMNIST", "KMNIST/raw", NAMES, ("", ".gz"), from_torchvision("KMNIST"))
    paths = files.find(data_root)
    return image_dataset("torchvision:KMNIST", read_pair(paths[0], paths[1]), read_pair(paths[2], paths[3]))


def load_emnist(split: Emnist = "balanced", data_root: str | Path | None = None) -> Dataset:
    """28×28 handwritten letters and digits, 10 to 62 classes, from ``EMNIST/raw``.

    The pictures are transposed, as in the files and in torchvision. Who wrote them is not in these files, so
    there are no natural clients.

    Args:
        split: which of EMNIST's data sets: balanced (112,800 + 18,800 in 47 classes), byclass (62), bymerge
            (47), digits, letters (26; the files number them from 1) or mnist.
        data_root: the folder that holds ``EMNIST/raw``.

    Raises:
        DataError: a file is missing or damaged, or cannot be downloaded.
    """
    parts = [f"emnist-{split}-{part}" for part in ("train", "test")]
    names = tuple(f"{part}-{rest}" for part in parts for rest in ("images-idx3-ubyte", "labels-idx1-ubyte"))
    download = from_torchvision("EMNIST", split=split)
    paths = Files("torchvision:EMNIST", "EMNIST/raw", names, ("", ".gz"), download).find(data_root)
    first = 1 if split == "letters" else 0
    train, test = (read_pair(paths[k], paths[k + 1], CLASSES[split] + first, MAX_BYTES) for k in (0, 2))
    for path, (_, labels) in zip(paths[1::2], (train, test), strict=True):
        if labels.min() < first:
            raise DataError(f"{path} holds the label 0; letters are numbered from 1")
    train, test = ((images, labels - np.uint8(first)) for images, labels in (train, test))
    return image_dataset("torchvision:EMNIST", train, test, CLASSES[split], class_names=_characters(split))


def _characters(split: Emnist) -> tuple[str, ...]:
    """The character of each class."""
    if split in ("digits", "mnist"):
        return tuple(string.digits)
    if split == "letters":
        return tuple(string.ascii_lowercase)
    merged = _MERGED if split in ("balanced", "bymerge") else frozenset()
    characters = string.digits + string.ascii_uppercase + string.ascii_lowercase
    return tuple(character for character in characters if character not in merged)


def load_cifar100(labels: Literal["fine", "coarse"] = "fine", data_root: str | Path | None = None) -> Dataset:
    """50,000 + 10,000 32×32 color photos, 100 classes, from ``cifar-100-python``.

    Args:
        labels: "fine" for the 100 classes, "coarse" for their 20 groups.
        data_root: the folder that holds ``cifar-100-python``.

    Raises:
        DataError: a file is missing or damaged, or cannot be downloaded.
    """
    download = from_torchvision("CIFAR100")
    files = Files("torchvision:CIFAR100", "cifar-100-python", ("train", "test"), ("",), download)
    count = 100 if labels == "fine" else 20
    paths = files.find(data_root)
    train, test = (read_batch(path, f"{labels}_labels", count) for path in paths)
    names = _listed(paths[0].with_name("meta"), f"{labels}_label_names", count)
    return image_dataset("torchvision:CIFAR100", train, test, count, class_names=names)


def _listed(path: Path, key: str, count: int) -> tuple[str, ...]:
    """The names of the classes in CIFAR's file of names; none if it is not there, or holds something else."""
    try:
        names = read_pickle(path)[key]
    except (DataError, TypeError, KeyError):
        return ()
    named = isinstance(names, list) and len(names) == count and all(isinstance(name, str) for name in names)
    return tuple(names) if named else ()


#: Those with readers of FedGuard.
OWN: dict[str, Maker] = {
    "MNIST": load_mnist,
    "FashionMNIST": load_fashion_mnist,
    "KMNIST": load_kmnist,
    "EMNIST": load_emnist,
    "CIFAR10": load_cifar10,
    "CIFAR100": load_cifar100,
}


def torchvision_set(name: str) -> Maker:
    """The function that loads a data set of torchvision.

    Args:
        name: its class there.

    Raises:
        ParameterError: it is not among those that are supported.
    """
    if name in OWN:
        return OWN[name]
    if name not in OTHERS:
        known = (*OWN, *OTHERS)
        raise ParameterError(
            f"unknown data torchvision:{name}{nearest(name, known)} (known: {', '.join(known)}); write a "
            "function for others, and name it module:function"
        )

    def load(
        resize: int | None = None, test: float = TEST_SHARE, data_root: str | Path | None = None
    ) -> Dataset:
        return _load(name, resize, test, data_root)

    load.__doc__ = f"""Pictures with one label each: torchvision's data set {name}.

    Args:
        resize: height and width of all pictures; needed if they differ.
        test: the share of test samples, where the data set has none.
        data_root: the folder that holds torchvision's files.
    """
    return load


def _load(name: str, resize: int | None, test: float, data_root: str | Path | None) -> Dataset:
    train, held = OTHERS[name]
    where = f"torchvision:{name}"
    data = _opened(name, train, data_root)
    first = _read(data, where, resize)
    second = test if held is None else _read(_opened(name, held, data_root), f"{where} (test)", resize)
    found = from_arrays(where, first, second)
    names = tuple(map(_name, getattr(data, "classes", ())))
    return replace(found, class_names=names) if len(names) == found.num_classes else found


def _name(given: Any) -> str:
    """The name of a class; Imagenette has several words for each."""
    return ", ".join(given) if isinstance(given, tuple) else str(given)


def _opened(name: str, params: dict[str, Any], data_root: str | Path | None) -> Any:
    """A data set from the data root as it is, or from the cache, into which it is downloaded."""
    from ..vision import datasets

    given = data_root or os.environ.get(VARIABLE)
    root = Path(given).expanduser() if given else cache_root()
    kind = getattr(datasets, name)
    try:
        if not given:
            root.mkdir(parents=True, exist_ok=True)
        return kind(str(root), **params, download=not given)
    except (OSError, RuntimeError, ValueError, ImportError) as error:
        advice = (
            "or unset the data root to have it downloaded" if given else f"or set {VARIABLE} to its folder"
        )
        said = str(error).partition(" You can use download=True")[0].rstrip(".")
        raise DataError(
            f"torchvision:{name}: {root}: {said}; check the files and the network, {advice}"
        ) from None


def _read(data: Any, where: str, resize: int | None) -> Arrays:
    images, labels = [], []
    size = None if resize is None else (resize, resize)
    for i, (image, label) in enumerate(data):
        images.append(pixels(image, size, image.mode in ("1", "L")))
        labels.append(int(label))
        if images[i].shape != images[0].shape:
            raise DataError(
                f"{where}: picture {i} has shape {images[i].shape}, the first {images[0].shape}; set `resize`"
            )
    return Arrays(where, np.stack(images), np.array(labels))
