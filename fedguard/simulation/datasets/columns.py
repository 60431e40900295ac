"""Columns of a table: numbers or texts, and the features that they become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError

#: Texts that stand for a missing value, in lower case.
MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
#: A column with more different texts holds names or numbers of samples, not categories.
MAX_CATEGORIES = 1000
#: From this share of numbers on, a text in a column is a typing mistake.
MOSTLY = 0.9


class Column(NamedTuple):
    """A column as float64 numbers (NaN where one is missing), or as texts (None where one is missing).

    Attributes:
        values: (N,) float64, or objects.
        missing: (N,) where a value is missing.
    """

    values: NDArray[Any]
    missing: NDArray[np.bool_]

    @property
    def is_text(self) -> bool:
        """Whether it holds texts."""
        return self.values.dtype == object

    def texts(self) -> NDArray[Any]:
        """(N,) every value as text: numbers in their shortest form."""
        if self.is_text:
            return self.values
        return np.array([f"{value:.15g}" for value in self.values.tolist()], dtype=object)


def columns_of(
    name: str, values: Sequence[Any], place: Callable[[int], str], as_text: bool, text: bool | None = None
) -> Column:
    """Read a column.

    Args:
        name: its name, for messages.
        values: texts, numbers or None.
        place: the place of a value in the file, for messages.
        as_text: take numbers as texts.
        text: what the same column of the training file holds, if there is one.

    Raises:
        DataError: a number is infinite, almost all values are numbers and one is not, or a value is neither
            text nor number.
    """
    if not as_text and not text:
        try:  # almost every column, and fast
            whole = np.array(values, dtype=np.float64)
        except (TypeError, ValueError):  # a text, or a missing value written as text
            whole = np.empty(())
        if whole.ndim == 1:
            return _numeric(name, whole, place)
    missing = np.array([_is_missing(value) for value in values], dtype=bool)
    if as_text or text:
        return _texts(name, values, missing, place)
    numbers = np.full(len(values), np.nan)
    odd = [i for i, value in enumerate(values) if not missing[i] and not _read(value, numbers, i)]
    if not odd:
        return _numeric(name, numbers, place)
    good = len(values) - len(odd) - int(missing.sum())
    if text is False or good >= MOSTLY * (len(values) - int(missing.sum())):
        raise DataError(
            f"{place(odd[0])}: column {name!r}: {str(values[odd[0]])[:50]!r} is not a number, as {good} "
            f"other values are; correct it, or list {name} under `categorical`"
        )
    return _texts(name, values, missing, place)


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in MISSING
    return value is None or (isinstance(value, float) and value != value)


def _read(value: Any, numbers: NDArray[np.float64], i: int) -> bool:
    try:
        numbers[i] = float(value)
    except (TypeError, ValueError):
        return False
    return True


def _numeric(name: str, numbers: NDArray[np.float64], place: Callable[[int], str]) -> Column:
    beyond = np.abs(numbers) > np.finfo(np.float32).max
    if beyond.any():
        first = int(beyond.argmax())
        raise DataError(
            f"{place(first)}: column {name!r}: {numbers[first]:g} is infinite, or too large for 32 bits; "
            "correct it"
        )
    return Column(numbers, np.isnan(numbers))


def _texts(
    name: str, values: Sequence[Any], missing: NDArray[np.bool_], place: Callable[[int], str]
) -> Column:
    result = np.full(len(values), None, dtype=object)
    for i, value in enumerate(values):
        if missing[i]:
            continue
        if not isinstance(value, str | int | float | np.generic):
            raise DataError(
                f"{place(i)}: column {name!r} holds {type(value).__name__}; only numbers and text can be "
                "used: put it under `ignore`"
            )
        result[i] = str(value).strip()
    return Column(result, missing)


def encoded(
    name: str,
    column: Column,
    rows: NDArray[np.int64],
    training: Column,
    training_rows: NDArray[np.int64],
    where: str,
) -> NDArray[np.float32]:
    """(N, 1) numbers, or (N, categories of the training part) zeros and ones.

    Missing numbers become the training part's mean, missing texts its most frequent text.

    Raises:
        DataError: it has too many categories, or no value at all.
    """
    seen = training.values[training_rows][~training.missing[training_rows]]
    if len(seen) == 0:
        raise DataError(f"{where}: column {name!r} has no value in the training part; put it under `ignore`")
    values = column.values[rows].copy()
    if not training.is_text:
        values[column.missing[rows]] = seen.mean()
        return values[:, None].astype(np.float32)
    counts = Counter(seen.tolist())
    categories = sorted(counts)
    if len(categories) > MAX_CATEGORIES or (len(categories) == len(seen) > 20):
        raise DataError(
            f"{where}: column {name!r} has {len(categories)} different texts in {len(seen)} rows, so it does "
            "not hold categories; put it under `ignore`"
        )
    values[column.missing[rows]] = max(categories, key=counts.__getitem__)
    # A NumPy array of texts would give every one of them as much memory as the longest.
    places = {text: k for k, text in enumerate(categories)}
    found = np.array([places.get(text, -1) for text in values.tolist()])
    result = np.zeros((len(found), len(categories)), np.float32)
    result[found >= 0, found[found >= 0]] = 1
    return result
