"""Data sets from arrays, which every file format ends in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...contracts.data import Samples
from ...core.errors import DataError
from .base import Dataset, Task, image_constants, unit_pixels
from .split import split

#: The most classes: larger labels are numbers of something else.
MAX_CLASSES = 1_000_000
#: Python reads numbers of up to 4,300 digits.
MAX_DIGITS = 1000
#: Numbers of channels by which images with their channels last are recognized.
CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class Arrays:
    """Samples and labels as arrays, and where they are from.

    Attributes:
        where: the file or object, for messages.
        inputs: (N, …) numbers. Bytes (N, H, W), (N, H, W, C) or (N, C, H, W) are images; other numbers
            (N, F) are features, (N, C, H, W) or (N, H, W, C) images in [0, 1], anything else is taken as it
            is.
        labels: (N,) or (N, K).
        clients: (N,) names or numbers of natural clients, if there are any.
        place: where one sample is from, for messages.
    """

    where: str
    inputs: NDArray[Any]
    labels: NDArray[Any]
    clients: NDArray[Any] | None = None
    place: Callable[[int], str] | None = None

    def at(self, index: int) -> str:
        """Where a sample is from."""
        return self.place(index) if self.place else f"{self.where}: sample {index}"

    def take(self, rows: NDArray[np.int64]) -> Arrays:
        """Some of the samples."""
        clients = None if self.clients is None else self.clients[rows]
        place = lambda i: self.at(int(rows[i]))  # noqa: E731
        return Arrays(self.where, self.inputs[rows], self.labels[rows], clients, place)


def from_arrays(
    name: str,
    train: Arrays,
    test: Arrays | float,
    task: Task = "classification",
    classes: int | None = None,
    normalize: bool = True,
    class_names: Sequence[str] = (),
) -> Dataset:
    """A data set of arrays.

    Args:
        name: its name.
        train: the training samples, or all samples if ``test`` is a number.
        test: the test samples, or which share of the samples they are: a stratified split that does not
            depend on the experiment's seed.
        task: "classification" (labels 0 … K − 1), "multilabel" (labels of 0 and 1) or "regression".
        classes: K; by default the largest label plus 1.
        normalize: whether models get (x − mean) / std of the training part; without it, x itself.
        class_names: the names of the classes, or of several labels.

    Raises:
        DataError: something is wrong with the samples; names the place of the first.
        ParameterError: ``test`` is not between 0 and 1.
    """
    train = _checked(train, task, class_names)
    if isinstance(test, Arrays):
        test = _checked(test, task, class_names)
    else:
        parts = split(
            train.labels if task == "classification" else len(train.labels), test, train.where, class_names
        )
        train, test = (train.take(rows) for rows in parts)
    if train.inputs.shape[1:] != test.inputs.shape[1:] or train.inputs.dtype != test.inputs.dtype:
        raise DataError(
            f"{train.where}: training samples have shape {train.inputs.shape[1:]} ({train.inputs.dtype}), "
            f"test samples {test.inputs.shape[1:]} ({test.inputs.dtype}) in {test.where}; make them alike"
        )
    outputs = _outputs(train, test, task, classes, class_names)
    clients, client_names = client_numbers(train.clients)
    mean, std = _constants(train.inputs) if normalize else ((0.0,), (1.0,))
    return Dataset(
        name,
        _samples(train),
        _samples(test),
        outputs,
        mean,
        std,
        clients,
        client_names,
        task,
        tuple(map(str, class_names)),
    )


def _checked(data: Arrays, task: Task, class_names: Sequence[str]) -> Arrays:
    """Inputs with their channels first, labels of the task's type, everything finite."""
    inputs, labels = np.asarray(data.inputs), np.asarray(data.labels)
    if inputs.ndim < 2 or 0 in inputs.shape:
        raise DataError(f"{data.where}: inputs have shape {inputs.shape}; (N, …) with N > 0 is expected")
    if len(labels) != len(inputs):
        raise DataError(f"{data.where}: {len(inputs)} inputs, but {len(labels)} labels")
    if data.clients is not None and data.clients.shape != (len(inputs),):
        raise DataError(f"{data.where}: {len(inputs)} inputs, but clients of shape {data.clients.shape}")
    if inputs.dtype.kind not in "buif":
        raise DataError(f"{data.where}: inputs are {inputs.dtype}, not numbers")
    data = replace(data, inputs=_channels_first(inputs))
    _finite(data, data.inputs, "input")
    return replace(data, labels=_labels(data, labels, task, class_names))


def _channels_first(inputs: NDArray[Any]) -> NDArray[Any]:
    is_bytes = inputs.dtype == np.uint8
    if inputs.ndim == 3 and is_bytes:
        inputs = inputs[:, None]
    if inputs.ndim == 4 and inputs.shape[3] in CHANNELS and inputs.shape[1] not in CHANNELS:
        inputs = inputs.transpose(0, 3, 1, 2)
    inputs = inputs if is_bytes and inputs.ndim == 4 else inputs.astype(np.float32, copy=False)
    return np.require(inputs, requirements=["C", "W"])  # torch warns about memory that is read only


def _finite(data: Arrays, values: NDArray[Any], what: str) -> None:
    if values.dtype.kind != "f" or np.isfinite(values.sum(dtype=np.float64)):
        return
    rows = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
    if rows.any():
        first = int(rows.argmax())
        raise DataError(
            f"{data.at(first)}: the {what} is NaN or infinite, as in {int(rows.sum())} of {len(values)} "
            "samples; correct or remove them"
        )


def _labels(data: Arrays, labels: NDArray[Any], task: Task, class_names: Sequence[str]) -> NDArray[Any]:
    if task == "classification":
        return _classes(data, labels)
    if labels.ndim == 1:
        labels = labels[:, None]
    if labels.ndim != 2 or labels.dtype.kind not in "buif" or labels.shape[1] == 0:
        raise DataError(
            f"{data.where}: labels are {labels.dtype} of shape {labels.shape}; {task} takes numbers (N, K)"
        )
    labels = labels.astype(np.float32)
    _finite(data, labels, "label")
    if task == "multilabel" and not np.isin(labels, (0, 1)).all():
        row = int((~np.isin(labels, (0, 1)).all(axis=1)).argmax())
        raise DataError(f"{data.at(row)}: labels are {labels[row].tolist()}; multilabel takes 0 and 1")
    return labels


def _classes(data: Arrays, labels: NDArray[Any]) -> NDArray[np.int64]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(
            f"{data.where}: labels have shape {labels.shape}; classification takes (N,). For several answers "
            "per sample set `task: multilabel`, for numbers `task: regression`"
        )
    whole = labels.dtype.kind in "bui" or (
        labels.dtype.kind == "f" and bool((labels == np.floor(labels)).all())
    )
    if not whole or not np.isfinite(labels).all():
        raise DataError(
            f"{data.where}: labels are {labels.dtype}, not whole numbers; number the classes from 0, or set "
            "`task: regression`"
        )
    beyond = (labels < 0) | (labels >= MAX_CLASSES)
    if beyond.any():
        first = int(beyond.argmax())
        raise DataError(f"{data.at(first)}: the label is {labels[first]}; number the classes from 0 on")
    return labels.astype(np.int64)


def _outputs(train: Arrays, test: Arrays, task: Task, classes: int | None, names: Sequence[str]) -> int:
    """How many outputs a model needs: the number of classes, or of columns of labels."""
    if task != "classification":
        if train.labels.shape[1] != test.labels.shape[1]:
            raise DataError(
                f"{test.where}: {test.labels.shape[1]} labels per sample, {train.labels.shape[1]} in training"
            )
        return int(train.labels.shape[1])
    largest = int(max(train.labels.max(), test.labels.max()))
    count = classes or len(names) or largest + 1
    for data in (train, test):
        if data.labels.max() >= count:
            first = int((data.labels >= count).argmax())
            raise DataError(
                f"{data.at(first)}: the label is {data.labels[first]}, but there are {count} classes"
            )
    if count < 2:
        raise DataError(f"{train.where}: there is only one class; a classifier needs two")
    if count > len(train.labels):
        raise DataError(f"{train.where}: {count} classes, but only {len(train.labels)} training samples")
    absent = np.flatnonzero(np.bincount(train.labels, minlength=count) == 0)
    if len(absent):
        shown = ", ".join(repr(names[k]) if names else str(k) for k in absent[:5])
        raise DataError(
            f"{train.where}: no training sample has the class {shown}{' …' if len(absent) > 5 else ''}; "
            "add some, or number the classes without gaps"
        )
    return count


def client_numbers(given: NDArray[Any] | None) -> tuple[NDArray[np.int64] | None, tuple[str, ...]]:
    """(N,) the number of each sample's natural client, and their names in order; nothing without clients."""
    if given is None:
        return None, ()
    clients = given if given.dtype == object else given.astype(str)
    texts = [str(client) for client in clients.tolist()]
    names = sorted(set(texts))
    if all(name.isdecimal() and len(name) < MAX_DIGITS for name in names):
        names.sort(key=int)
    places = {name: k for k, name in enumerate(names)}
    return np.array([places[text] for text in texts], dtype=np.int64), tuple(places)


def _constants(inputs: NDArray[Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per feature or channel, or over everything; a constant is divided by 1."""
    if inputs.dtype == np.uint8:
        return image_constants(inputs)
    axes: Any = {2: (0,), 4: (0, 2, 3)}.get(inputs.ndim)
    mean = np.atleast_1d(inputs.mean(axis=axes, dtype=np.float64))
    std = np.atleast_1d(inputs.std(axis=axes, dtype=np.float64))
    return tuple(mean.tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _samples(data: Arrays) -> Samples:
    inputs: Tensor
    inputs = unit_pixels(data.inputs) if data.inputs.dtype == np.uint8 else torch.from_numpy(data.inputs)
    return Samples(inputs, torch.from_numpy(data.labels))
