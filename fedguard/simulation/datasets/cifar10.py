"""CIFAR-10 from its Python batches: the full set, or a subset in the same format."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from .base import Dataset, Raw, image_dataset
from .files import REPLACE, Files, from_torchvision

BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
FILES = Files("cifar10", "cifar-10-batches-py", (*BATCHES, "test_batch"), ("",), from_torchvision("CIFAR10"))
PIXELS = 3 * 32 * 32
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
#: A batch of 10,000 has 31 MB.
MAX_BYTES = 2**28


def load_cifar10(data_root: str | Path | None = None) -> Dataset:
    """50,000 + 10,000 32×32 color photos (or a subset), 10 classes, from ``cifar-10-batches-py``."""
    *train, test = [read_batch(path) for path in FILES.find(data_root)]
    images = np.concatenate([batch[0] for batch in train])
    labels = np.concatenate([batch[1] for batch in train])
    return image_dataset("cifar10", (images, labels), test, class_names=CLASSES)


def read_batch(path: Path, key: str = "labels", classes: int = 10) -> Raw:
    """The images of a batch and their labels, which CIFAR-100 has two of.

    Raises:
        DataError: it is no batch, or is damaged.
    """
    batch = read_pickle(path)
    try:
        data, labels = batch["data"].value, batch[key]
    except (TypeError, KeyError, AttributeError):
        raise DataError(
            f"{path} is not a CIFAR-{classes} batch: it has no `data` and `{key}`; {REPLACE}"
        ) from None
    if data.ndim != 2 or data.shape[1] != PIXELS or len(data) == 0:
        raise DataError(f"{path}: data has shape {data.shape}; (N, {PIXELS}) is expected. {REPLACE}")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise DataError(f"{path}: `{key}` is not a list of {len(data)} labels. {REPLACE}")
    if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
        raise DataError(f"{path}: a label is not one of 0 … {classes - 1}. {REPLACE}")
    return data.reshape(-1, 3, 32, 32), np.array(labels)


def read_pickle(path: Path) -> Any:
    """Unpickle only numbers, strings, lists, dicts and arrays of bytes (as :class:`_Array`).

    Raises:
        DataError: the file is damaged, or asks for any other class or function.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise DataError(f"it has more than {MAX_BYTES >> 20} MiB")
        with path.open("rb") as file:
            return _Unpickler(file, encoding="latin1").load()
    except Exception as error:  # damaged pickles raise almost any exception
        raise DataError(f"{path} cannot be read: {error}; {REPLACE}") from error


class _Array:
    """Replaces numpy.ndarray: it parses the pickled state itself, so numpy sees no untrusted state."""

    value: NDArray[np.uint8]

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, str | bytes]) -> None:
        _, shape, dtype, fortran, raw = state
        if not isinstance(dtype, _Dtype):
            raise pickle.UnpicklingError("an array without a type")
        data = raw.encode("latin1") if isinstance(raw, str) else raw
        self.value = np.frombuffer(data, np.uint8).reshape(shape, order="F" if fortran else "C")


class _Dtype:
    """Replaces numpy.dtype; accepts only unsigned bytes."""

    def __init__(self, code: str, align: object, copy: object) -> None:
        if code != "u1":
            raise pickle.UnpicklingError(f"an array of type {code!r}, not of unsigned bytes")

    def __setstate__(self, state: object) -> None:
        """Ignore byte order and flags, which do not matter for bytes."""


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    if kind is not _Array:
        raise pickle.UnpicklingError("an array of an unknown kind")
    return _Array()


def _encode(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Resolves only the names that a pickled array needs; a pickle cannot call anything else."""

    known = {  # noqa: RUF012 - a constant
        ("numpy", "ndarray"): _Array,
        ("numpy", "dtype"): _Dtype,
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        """Look up a name, or refuse it."""
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return self.known[module, name]
