"""Arrays in a NumPy .npz file as a data set."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from .arrays import Arrays, from_arrays
from .base import Dataset, Task
from .files import own_file
from .split import TEST_SHARE
from .table import wrong

#: The most bytes of a file, and of its arrays: an .npz file may be compressed.
MAX_BYTES, MAX_UNPACKED = 2**33, 2**33
#: The names of inputs and labels, without "train" and "test".
PAIRS = (("inputs", "labels"), ("x", "y"), ("images", "labels"), ("data", "targets"))


def load_npz(
    path: str,
    test: float | None = None,
    task: Task = "classification",
    classes: int | None = None,
    normalize: bool = True,
) -> Dataset:
    """Arrays of your own: ``inputs`` and ``labels``, or ``train_x``, ``train_y``, ``test_x``, ``test_y``.

    Other names: ``x_train`` and so on, ``train_images`` and ``train_labels`` (as MedMNIST has them).
    ``clients`` (or ``train_clients``) names each training sample's client. Bytes (N, H, W), (N, H, W, C) or
    (N, C, H, W) are images, other numbers (N, F) features.

    Args:
        path: the file; relative to the current folder.
        test: the share of test samples, 0.2 by default, if the file does not hold them.
        task: classification, multilabel (labels of 0 and 1, (N, K)) or regression.
        classes: the number of classes; by default the largest label plus 1.
        normalize: False hands the inputs to models as they are, for example numbers of words.

    Raises:
        DataError: the file cannot be read, or an array is wrong.
        ParameterError: a parameter does not fit.
    """
    file = own_file(path, MAX_BYTES)
    train, held = named_arrays(str(file), read_npz(file))
    if held is not None and test is not None:
        raise wrong("test", f"{file} holds test samples; leave `test` out")
    share = TEST_SHARE if test is None else test
    return from_arrays("npz", train, share if held is None else held, task, classes, normalize)


def named_arrays(where: str, arrays: Mapping[str, NDArray[Any]]) -> tuple[Arrays, Arrays | None]:
    """Training samples and test samples, if there are some of their own, among named arrays.

    Raises:
        DataError: there are none.
    """
    train, test, everything = (_pair(arrays, part) for part in ("train", "test", ""))
    found = everything if train is None or test is None else train
    if found is None:
        raise DataError(
            f"{where} holds {', '.join(arrays) or 'nothing'}; `inputs` and `labels`, or train_x, train_y, "
            "test_x and test_y are expected"
        )
    clients = arrays.get("clients", arrays.get("train_clients"))
    held = None if found is everything or test is None else Arrays(f"{where} (test)", *test)
    return Arrays(where, *found, clients=clients), held


def _pair(arrays: Mapping[str, NDArray[Any]], part: str) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Inputs and labels of a part, under any of their names."""
    for names in PAIRS:
        for inputs, labels in ([f"{part}_{n}" for n in names], [f"{n}_{part}" for n in names]):
            found = arrays.get(inputs.strip("_")), arrays.get(labels.strip("_"))
            if found[0] is not None and found[1] is not None:
                return found[0], found[1]
    return None


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file; nothing in it is unpickled.

    Raises:
        DataError: it is no .npz file, is damaged, holds objects, or is too large.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > MAX_UNPACKED:
                raise DataError(f"{path} has more than {MAX_UNPACKED >> 20} MiB unpacked; use fewer samples")
        with np.load(path, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except DataError:
        raise
    except Exception as error:  # damaged files raise almost any exception
        raise DataError(
            f"{path} cannot be read: {error}; write it with numpy.savez, without objects"
        ) from None
