"""Objects given from Python as data sets: arrays, PyTorch data sets, and pairs of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...contracts.data import LabeledData, Samples
from ...core.errors import DataError, ParameterError
from ...core.params import check_params
from .arrays import Arrays, from_arrays
from .base import Dataset, Task
from .npz import named_arrays
from .split import TEST_SHARE

#: About how many samples of a PyTorch data set are read twice, to see whether it draws them anew.
READ_TWICE = 16
#: What an error about another object says.
TAKES = (
    "give a Dataset, arrays (x, y) or (x_train, y_train, x_test, y_test), a mapping of names as in an .npz "
    "file, a torch.utils.data.Dataset of (x, y), LabeledData, Samples, or a pair (train, test) of these"
)


def as_dataset(value: Any, name: str, **params: Any) -> Dataset:
    """Any data that Python hands over as a data set.

    Args:
        value: a :class:`Dataset` (taken as it is); arrays ``(x, y)`` or ``(x_train, y_train, x_test,
            y_test)``, of NumPy, PyTorch or pandas; a mapping with the names of :func:`.npz.load_npz`, such as
            ``inputs``, ``labels`` and ``clients``; a ``torch.utils.data.Dataset`` whose items are (x, y);
            ``LabeledData`` or ``Samples``; a pair (train, test) of data sets, ``LabeledData`` or
            ``Samples``. All samples are read into memory once.
        name: its name, for messages and results.
        params: ``test`` (the share of test samples, 0.2), ``task``, ``classes`` and ``normalize``, see
            :func:`.arrays.from_arrays`.

    Raises:
        DataError: something is wrong with the samples.
        ParameterError: it is something else, or a parameter is unknown.
    """
    if isinstance(value, Dataset):
        if params:
            raise ParameterError(f"data {name} is loaded already: it takes no parameters")
        return value
    settings = check_params(_options, params, f"data {name}")
    train, test = _parts(value, name)
    held: Arrays | float = settings.pop("test", TEST_SHARE)
    if test is not None:
        if "test" in params:
            raise ParameterError(f"data {name} has test samples; leave `test` out")
        held = test
    return from_arrays(name, train, held, **settings)


def _options(
    test: float = TEST_SHARE,
    task: Task = "classification",
    classes: int | None = None,
    normalize: bool = True,
) -> None:
    """The parameters of given data."""


def _parts(value: Any, name: str) -> tuple[Arrays, Arrays | None]:
    if _is_set(value):
        return _read(value, name), None
    if isinstance(value, Mapping):
        return named_arrays(name, {key: _array(item, name).copy() for key, item in value.items()})
    items = list(value) if isinstance(value, tuple | list) else []
    if len(items) == 2 and all(map(_is_set, items)):
        return _read(items[0], name), _read(items[1], f"{name} (test)")
    if len(items) == 2 and all(isinstance(item, tuple) and len(item) == 2 for item in items):
        return _pair(items[0], name), _pair(items[1], f"{name} (test)")
    if len(items) == 2:
        return _pair(items, name), None
    if len(items) == 4:
        return _pair(items[:2], name), _pair(items[2:], f"{name} (test)")
    raise ParameterError(f"data {name} is a {type(value).__name__}, not a Dataset; {TAKES}")


def _is_set(value: Any) -> bool:
    return isinstance(value, torch.utils.data.Dataset | LabeledData | Samples)


def _read(value: Any, name: str) -> Arrays:
    """All samples of a data set of PyTorch, in its order."""
    if isinstance(value, LabeledData | Samples):
        return _pair(value, name)
    if not hasattr(value, "__len__") or not hasattr(value, "__getitem__"):
        raise ParameterError(
            f"data {name}: {type(value).__name__} has no length; give one that can be indexed"
        )
    inputs, labels = [], []
    for i in range(len(value)):
        try:
            x, y = value[i]
        except (TypeError, ValueError):
            raise DataError(f"{name}: sample {i} of {type(value).__name__} is not a pair (x, y)") from None
        inputs.append(_array(x, name))
        labels.append(_array(y, name))
        if inputs[-1].shape != inputs[0].shape:
            raise DataError(
                f"{name}: sample {i} has shape {inputs[-1].shape}, sample 0 {inputs[0].shape}; "
                "make them alike"
            )
    if not inputs:
        raise DataError(f"{name} is empty; at least one sample is needed")
    for i in range(0, len(inputs), max(1, len(inputs) // READ_TWICE)):
        again = [_array(item, name) for item in value[i]]
        if not all(map(_same, again, (inputs[i], labels[i]))):
            raise DataError(
                f"{name}: sample {i} of {type(value).__name__} is another one when it is read again, so no "
                "run could be repeated; leave out random transforms (`training.augment` has some)"
            )
    return Arrays(name, np.stack(inputs), np.stack(labels))


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def _pair(pair: Any, name: str) -> Arrays:
    inputs, labels = pair
    return Arrays(name, _array(inputs, name).copy(), _array(labels, name).copy())


def _array(value: Any, name: str) -> NDArray[Any]:
    """An array of numbers: of a tensor, an image, a list or a number."""
    if isinstance(value, Tensor):
        return value.detach().cpu().numpy()
    if value is None or isinstance(value, str | bytes | dict):
        raise ParameterError(
            f"data {name} holds a {type(value).__name__} where an array is expected; {TAKES}"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name}: {error}; samples need one shape") from None
    return array
