"""Tables as data sets: columns become features, labels and natural clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...core.errors import DataError, ParameterError
from ...core.params import nearest
from .arrays import Arrays, from_arrays
from .base import Dataset, Task
from .columns import Column, columns_of, encoded
from .split import split

#: What becomes of a sample with a missing value: an error, the mean (of text: the most frequent one) of the
#: training part in its place, or the sample is left out.
Missing = Literal["error", "mean", "drop"]
#: The most features of a table, and the most numbers: 8 GiB of float32.
MAX_FEATURES, MAX_NUMBERS = 100_000, 2**31


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        where: the file, for messages.
        columns: name → values: texts, numbers, or None where one is missing.
        place: the place of a row in the file, for messages.
    """

    where: str
    columns: Mapping[str, Sequence[Any]]
    place: Callable[[int], str]


@dataclass(frozen=True)
class Roles:
    """What the columns of a table are.

    Attributes:
        label: the column with the label, or several.
        client: the column that names each sample's client.
        ignore: columns to leave out.
        categorical: columns of numbers to take as categories.
        missing: what becomes of missing values.
        task: what the labels are.
    """

    label: str | list[str]
    client: str | None = None
    ignore: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    missing: Missing = "error"
    task: Task = "classification"

    @property
    def labels(self) -> list[str]:
        """The columns with labels."""
        return [self.label] if isinstance(self.label, str) else list(self.label)


def from_tables(name: str, train: Table, test: Table | float, roles: Roles) -> Dataset:
    """A data set of a table, or of two.

    Columns of numbers are features as they are; a column of texts becomes one feature of 0 and 1 for each
    text of the training part, in alphabetic order (a text that only the test part has gives zeros).

    Args:
        name: its name.
        train: the training samples, or all samples if ``test`` is a number.
        test: the test samples, or their share, see :func:`.split.split`.
        roles: what the columns are.

    Raises:
        DataError: a value is missing, infinite or of the wrong type; names file, row and column.
        ParameterError: a column does not exist, or a role does not fit.
    """
    known = _Known.of(train, roles)
    if isinstance(test, Table):
        other = _Known.of(test, roles, like=known)
        names = _class_names(roles, known, other)
        parts = (known, np.arange(known.count)), (other, np.arange(other.count))
    else:
        names = _class_names(roles, known)
        labels = known.labels(names)
        rows = split(labels if roles.task == "classification" else known.count, test, train.where, names)
        parts = (known, rows[0]), (known, rows[1])
    first, second = (known.arrays(rows, parts[0], names) for known, rows in parts)
    several = roles.labels if roles.task == "multilabel" else ()
    return from_arrays(name, first, second, roles.task, class_names=names or several)


@dataclass(frozen=True)
class _Known:
    """A table whose columns have been read as numbers or texts, without the rows that are left out."""

    table: Table
    roles: Roles
    columns: dict[str, Column]
    rows: NDArray[np.int64]

    @classmethod
    def of(cls, table: Table, roles: Roles, like: _Known | None = None) -> _Known:
        _check_roles(table, roles, like is not None)
        used = [c for c in table.columns if c not in roles.ignore]
        if like is not None:
            used = [c for c in like.columns if c in table.columns]
            absent = [c for c in like.columns if c not in table.columns and c != roles.client]
            if absent:
                raise DataError(f"{table.where} has no column {absent[0]!r}, which {like.table.where} has")
        texts = {roles.client, *roles.categorical}
        kinds = {} if like is None else {name: column.is_text for name, column in like.columns.items()}
        columns = {c: columns_of(c, table.columns[c], table.place, c in texts, kinds.get(c)) for c in used}
        missing = np.any([column.missing for column in columns.values()], axis=0)
        if roles.missing == "drop":
            rows = np.flatnonzero(~missing)
            if len(rows) == 0:
                raise DataError(f"{table.where}: every row has a missing value; nothing is left")
            return cls(table, roles, columns, rows)
        must = columns if roles.missing == "error" else {*roles.labels, roles.client}
        for name, column in columns.items():
            if name in must and column.missing.any():
                raise _missing(table, name, column, roles)
        return cls(table, roles, columns, np.arange(len(missing)))

    @property
    def count(self) -> int:
        """How many rows are left."""
        return len(self.rows)

    def labels(self, names: Sequence[str]) -> NDArray[Any]:
        """(N,) classes, or (N, K) numbers."""
        if self.roles.task == "classification":
            numbers = {name: k for k, name in enumerate(names)}
            return np.array([numbers[text] for text in self.classes()], dtype=np.int64)
        return np.stack([self._numbers(name) for name in self.roles.labels], axis=1)

    def _numbers(self, name: str) -> NDArray[np.float64]:
        column = self.columns[name]
        if column.is_text:
            example = next(text for text in column.values if text is not None)
            raise DataError(
                f"{self.table.where}: the label {name!r} holds text such as {example!r}; {self.roles.task} "
                "takes numbers"
            )
        return column.values[self.rows]

    def classes(self) -> list[str]:
        """The class of every row as text."""
        return self.columns[self.roles.labels[0]].texts()[self.rows].tolist()  # type: ignore[no-any-return]

    def arrays(
        self, rows: NDArray[np.int64], training: tuple[_Known, NDArray[np.int64]], names: Sequence[str]
    ) -> Arrays:
        """Some rows as arrays, encoded by the training part."""
        own, own_rows = self.rows[rows], training[0].rows[training[1]]
        special = {*self.roles.labels, self.roles.client}
        features = [name for name in training[0].columns if name not in special]
        if not features:
            raise DataError(f"{self.table.where}: no column is left for the inputs")
        parts = [
            encoded(name, self.columns[name], own, training[0].columns[name], own_rows, self.table.where)
            for name in features
        ]
        width = sum(part.shape[1] for part in parts)
        if width > MAX_FEATURES or width * len(own) > MAX_NUMBERS:
            raise DataError(f"{self.table.where}: {width} features of {len(own)} samples are too many")
        client = self.roles.client
        clients = self.columns[client].texts()[own] if client in self.columns and client else None
        return Arrays(
            self.table.where,
            np.concatenate(parts, axis=1),
            self.labels(names)[rows],
            clients,
            lambda i: self.table.place(int(own[i])),
        )


def _class_names(roles: Roles, *tables: _Known) -> list[str]:
    """The classes in order: of numbers, else of texts; empty for other tasks."""
    if roles.task != "classification":
        return []
    names = {text for table in tables for text in table.classes()}
    numbers = all(not table.columns[roles.labels[0]].is_text for table in tables)
    return sorted(names, key=float) if numbers else sorted(names)


def _check_roles(table: Table, roles: Roles, test: bool) -> None:
    wanted: list[tuple[str, str]] = [("label", name) for name in roles.labels]
    if not test:
        wanted += [("client", roles.client)] if roles.client else []
        wanted += [(key, name) for key in ("ignore", "categorical") for name in getattr(roles, key)]
    for key, name in wanted:
        if name not in table.columns:
            known = ", ".join(list(table.columns)[:20])
            raise wrong(
                key, f"{table.where} has no column {name!r}{nearest(name, table.columns)} (it has {known})"
            )
    if not roles.labels:
        raise wrong("label", "name at least one column")
    if len(roles.labels) > 1 and roles.task == "classification":
        raise wrong("label", "several columns go with `task: multilabel` or `task: regression`")
    taken = [*roles.labels, *([roles.client] if roles.client else []), *roles.ignore]
    if len({*taken}) < len(taken):
        name = next(name for name in taken if taken.count(name) > 1)
        raise wrong("label", f"the column {name!r} has two roles among label, client and ignore; give it one")


def _missing(table: Table, name: str, column: Column, roles: Roles) -> DataError:
    row, count = int(column.missing.argmax()), int(column.missing.sum())
    special = name in roles.labels or name == roles.client
    advice = "`missing: drop` leaves such rows out" + (
        "" if special else ", `missing: mean` puts the training part's mean there"
    )
    return DataError(
        f"{table.place(row)}: column {name!r}: a value is missing (in {count} of {len(column.missing)} "
        f"rows); fill it in, or say what to do: {advice}"
    )


def wrong(key: str, message: str) -> ParameterError:
    """An error about one parameter of a data set."""
    error = ParameterError(message)
    error.key = key
    return error
