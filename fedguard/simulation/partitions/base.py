"""What the partitions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from ...core.errors import ParameterError

#: The samples of each client.
Partition = list[NDArray[np.int64]]
#: (client, (m, …) its inputs before normalization, its generator) → its inputs, changed: same shape and type.
Change: TypeAlias = Callable[[int, Tensor, torch.Generator], Tensor]
#: How often a random partition is drawn before the function gives up.
MAX_DRAWS = 1000


class Split(NamedTuple):
    """What a partition returns if clients differ in their inputs, too; else the parts alone will do.

    Attributes:
        parts: the samples of each client.
        change: changes the inputs of a client's training samples; the test set stays as it is.
        notes: for each client, how its inputs differ, in words.
    """

    parts: Partition
    change: Change | None = None
    notes: Sequence[str] = ()


def checked_size(labels: ArrayLike, n: int) -> int:
    """The number of samples, at least one for every client.

    Raises:
        ParameterError: there are fewer samples than clients.
    """
    size = len(np.asarray(labels))
    if n < 1 or n > size:
        raise ParameterError(f"{size} samples cannot be dealt to {n} clients; use 1 … {size} clients")
    return size


def checked_labels(labels: ArrayLike, n: int) -> NDArray[np.int64]:
    """(N,) int64: the classes of at least as many samples as there are clients.

    Raises:
        ParameterError: there are fewer samples than clients, or the labels are no classes.
    """
    y = np.asarray(labels)
    if y.ndim != 1 or y.dtype.kind not in "biu":
        raise ParameterError(
            f"this partition deals classes, but the labels are {y.dtype} of shape {y.shape}; "
            "use iid, quantity or natural"
        )
    checked_size(y, n)
    return y.astype(np.int64)


def by_class(y: NDArray[np.int64]) -> Partition:
    """The samples of each class."""
    return [np.flatnonzero(y == label) for label in np.unique(y)]


def sorted_by_label(labels: ArrayLike, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """These samples in the order of their labels; samples with equal labels keep their order.

    Raises:
        ParameterError: a sample has several labels.
    """
    y = np.asarray(labels)
    if y.ndim == 2 and y.shape[1] == 1:  # a number for each sample
        y = y[:, 0]
    if y.ndim != 1:
        raise ParameterError(
            f"samples of labels of shape {y.shape} cannot be sorted by label; use iid, quantity or natural"
        )
    return rows[np.argsort(y[rows], kind="stable")]


def cut_points(size: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Where to cut ``size`` samples into parts of these shares."""
    return (np.cumsum(shares)[:-1] * size).round().astype(np.int64)


def checked_split(made: Any, name: str, size: int, n: int) -> Split:
    """What a partition returned, as sorted int64 indices.

    Raises:
        ParameterError: it is not n arrays of indices, a client gets nothing, or a sample has two owners.
    """
    split = made if isinstance(made, Split) else Split(made)
    where = f"partition {name}"
    try:
        parts = [np.asarray(part) for part in split.parts]
    except (TypeError, ValueError):
        raise ParameterError(f"{where} made a {type(made).__name__}, not a list of index arrays") from None
    if len(parts) != n:
        raise ParameterError(f"{where} made {len(parts)} parts for {n} clients")
    for client, part in enumerate(parts):
        if len(part.shape) == 1 and len(part) == 0:
            raise ParameterError(
                f"{where} leaves client {client} of {n} without samples; lower `clients` or deal more evenly"
            )
        if part.ndim != 1 or part.dtype.kind not in "iu":
            raise ParameterError(
                f"{where} gave client {client} {part.dtype} of shape {part.shape}; expected whole numbers "
                "of shape (m,): the positions of its samples"
            )
    dealt = np.sort(np.concatenate(parts))
    if dealt[0] < 0 or dealt[-1] >= size:
        raise ParameterError(f"{where} gave positions {dealt[0]} … {dealt[-1]} of {size} samples")
    twice = dealt[1:][dealt[1:] == dealt[:-1]]
    if len(twice):
        raise ParameterError(
            f"{where} gave sample {twice[0]} to two clients, or twice to one; a sample has one owner"
        )
    if split.notes and len(split.notes) != n:
        raise ParameterError(f"{where} made {len(split.notes)} notes for {n} clients")
    return Split([np.sort(part.astype(np.int64)) for part in parts], split.change, tuple(split.notes))
