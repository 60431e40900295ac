"""Data sets of the Hugging Face Hub, ``huggingface:ylecun/mnist``; needs the extra ``huggingface``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError
from ...core.extras import extra_module
from ...core.params import nearest
from ..parts import Maker
from .arrays import Arrays, from_arrays
from .base import Dataset, Task
from .files import cache_root
from .image_folder import pixels
from .split import TEST_SHARE
from .table import Missing, Roles, Table, from_tables, wrong


def huggingface_set(name: str) -> Maker:
    """The function that loads a data set of the Hub, or a folder of its files.

    Args:
        name: "owner/name".
    """

    def load(
        label: str | list[str] = "label",
        input: str | list[str] | None = None,
        client: str | None = None,
        config: str | None = None,
        revision: str | None = None,
        train: str = "train",
        test: str | float | None = None,
        task: Task = "classification",
        resize: int | None = None,
        normalize: bool = True,
        missing: Missing = "error",
    ) -> Dataset:
        where = f"huggingface:{name}"
        parts = _fetched(name, config, revision)
        own = _part(where, parts, "train", train)
        held: Any = test
        if held is None:
            held = parts["test"] if "test" in parts and train != "test" else TEST_SHARE
        elif isinstance(held, str):
            held = _part(where, parts, "test", held)
        inputs = _inputs(where, own, input, label, client)
        if isinstance(inputs, list):
            roles = Roles(label, client, missing=missing, task=task)
            first = _table(where, own, inputs, roles)
            other = held if isinstance(held, float) else _table(f"{where} (test)", held, inputs, roles)
            return from_tables(where, first, other, roles)
        names = _class_names(own, label, task)
        size = None if resize is None else (resize, resize)
        one = _arrays(where, own, inputs, label, client, size, names)
        two = (
            held
            if isinstance(held, float)
            else _arrays(f"{where} (test)", held, inputs, label, None, size, names)
        )
        return from_arrays(where, one, two, task, None, normalize, names)

    load.__doc__ = f"""A data set of the Hugging Face Hub: {name}, kept in the download cache.

    No code of the Hub runs: data sets that need some are refused.

    Args:
        label: the column with the label; several for the other tasks.
        input: the column with pictures, arrays or lists of numbers, or a list of columns that are used as
            those of ``csv``; the only other column by default.
        client: the column that names each sample's client.
        config: the configuration, if the data set has several.
        revision: a commit or tag; give one, since names can be moved.
        train: the split to train on.
        test: the split to test on, or a share of the training split; by default "test", or 0.2 without one.
        task: classification, multilabel or regression.
        resize: height and width of all pictures; needed if they differ.
        normalize: False hands the inputs to models as they are, for example numbers of words.
        missing: see ``csv``; for columns.
    """
    return load


def _fetched(name: str, config: str | None, revision: str | None) -> Any:
    library = extra_module("datasets", "huggingface", f"data huggingface:{name}")
    folder = cache_root() / "huggingface"
    try:
        return library.load_dataset(name, config, revision=revision, cache_dir=str(folder))
    except Exception as error:  # networks fail in many ways
        raise DataError(
            f"huggingface:{name} could not be read: {error}. Check the name, `config`, `revision` and the "
            f"network; what was downloaded is kept in {folder}"
        ) from None


def _part(where: str, parts: Any, key: str, split: str) -> Any:
    if split not in parts:
        raise wrong(key, f"{where} has no split {split!r}{nearest(split, parts)} (it has {', '.join(parts)})")
    return parts[split]


def _inputs(
    where: str, part: Any, chosen: str | list[str] | None, label: str | list[str], client: str | None
) -> Any:
    """The column with the inputs, or a list of columns."""
    labels = [label] if isinstance(label, str) else label
    known = part.column_names
    wanted = [("label", name) for name in labels] + ([("client", client)] if client else [])
    wanted += [("input", name) for name in ([chosen] if isinstance(chosen, str) else chosen or [])]
    for key, name in wanted:
        if name not in known:
            raise wrong(
                key, f"{where} has no column {name!r}{nearest(name, known)} (it has {', '.join(known)})"
            )
    if chosen is not None:
        return chosen
    rest = [name for name in known if name not in (*labels, client)]
    if len(rest) != 1:
        raise wrong("input", f"{where} has the columns {', '.join(known)}; say which of them is the input")
    return rest[0]


def _table(where: str, part: Any, inputs: list[str], roles: Roles) -> Table:
    names = [*inputs, *roles.labels, *([roles.client] if roles.client else [])]
    return Table(where, {name: part[name][:] for name in names}, lambda i: f"{where}: row {i + 1}")


def _class_names(part: Any, label: str | list[str], task: Task) -> list[str]:
    """The classes, as the data set names them or as its training split has them."""
    if task != "classification" or not isinstance(label, str):
        return []
    names = getattr(part.features[label], "names", None)
    if names:
        return list(names)
    found = set(part[label][:])
    return sorted(found) if all(isinstance(value, str) for value in found) else []


def _arrays(
    where: str,
    part: Any,
    inputs: str,
    label: str | list[str],
    client: str | None,
    size: tuple[int, int] | None,
    names: list[str],
) -> Arrays:
    """The samples of a split as arrays."""
    samples: list[NDArray[Any]] = []
    for i, value in enumerate(part[inputs]):
        samples.append(_sample(where, i, value, size))
        if samples[i].shape != samples[0].shape:
            raise DataError(
                f"{where}: row {i + 1} has shape {samples[i].shape}, the first {samples[0].shape}; for "
                "pictures, set `resize`"
            )
    if not samples:
        raise DataError(f"{where} has no rows; at least one sample is needed")
    columns = [
        _numbers(where, name, part[name][:], names) for name in ([label] if isinstance(label, str) else label)
    ]
    labels = columns[0] if isinstance(label, str) else np.stack(columns, axis=1)
    clients = None if client is None else np.array([str(value) for value in part[client]])
    return Arrays(where, np.stack(samples), labels, clients, lambda i: f"{where}: row {i + 1}")


def _sample(where: str, i: int, value: Any, size: tuple[int, int] | None) -> NDArray[Any]:
    if hasattr(value, "convert") and hasattr(value, "mode"):
        return pixels(value, size, value.mode in ("1", "L", "LA"))
    if value is None or isinstance(value, str | dict):
        raise DataError(
            f"{where}: row {i + 1}: the input is {type(value).__name__}, not a picture or numbers; write a "
            "function that makes arrays of it, and name it module:function"
        )
    try:
        return np.atleast_1d(np.asarray(value))
    except ValueError as error:
        raise DataError(f"{where}: row {i + 1}: {error}") from None


def _numbers(where: str, name: str, values: Any, names: list[str]) -> NDArray[Any]:
    """Labels as numbers; texts by their place among the classes."""
    places = {text: k for k, text in enumerate(names)}
    result = [places.get(value, value) if isinstance(value, str) else value for value in values]
    odd = [i for i, value in enumerate(result) if value is None or isinstance(value, str)]
    if odd:
        raise DataError(
            f"{where}: row {odd[0] + 1}: the label {name!r} is {result[odd[0]]!r}, which is no class"
        )
    return np.array(result)
