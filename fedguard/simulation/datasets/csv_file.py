"""A CSV file as a data set."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from ...core.errors import DataError
from .base import Dataset, Task
from .files import own_file
from .split import TEST_SHARE
from .table import MAX_FEATURES, Missing, Roles, Table, from_tables, wrong

#: A CSV file becomes about ten times as large in memory while it is read.
MAX_BYTES = 2**30
#: What stands between values of other programs' files.
OTHERS = (";", "\t", "|", ",")


def load_csv(
    path: str,
    label: str | list[str],
    client: str | None = None,
    test: float | None = None,
    test_path: str | None = None,
    task: Task = "classification",
    ignore: list[str] | None = None,
    categorical: list[str] | None = None,
    missing: Missing = "error",
    delimiter: str = ",",
) -> Dataset:
    """A table of your own, one sample per line, with a header.

    Columns of numbers are features; a column of texts becomes one feature of 0 and 1 for each text of the
    training part. The classes are the label's texts in alphabetic order, or its numbers in their order.

    Args:
        path: the file, UTF-8; relative to the current folder.
        label: the column with the label; several for the other tasks.
        client: the column that names each sample's client, for natural clients.
        test: the share of test samples, 0.2 by default; the split is stratified and always the same.
        test_path: a file with the test samples instead.
        task: classification, multilabel (columns of 0 and 1) or regression.
        ignore: columns to leave out.
        categorical: columns of numbers to take as categories.
        missing: an empty value is an "error", becomes the training part's "mean", or "drop"s its line.
        delimiter: between two values.

    Raises:
        DataError: the file cannot be read, or a value is wrong; names file, line and column.
        ParameterError: a column does not exist, or a parameter does not fit.
    """
    roles = Roles(label, client, tuple(ignore or ()), tuple(categorical or ()), missing, task)
    if test is not None and test_path is not None:
        raise wrong("test", "give either test or test_path")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise wrong("delimiter", f"{delimiter!r} cannot stand between values; use one character, such as ';'")
    train = read_csv(own_file(path, MAX_BYTES), delimiter)
    held = TEST_SHARE if test is None else test
    other = held if test_path is None else read_csv(own_file(test_path, MAX_BYTES), delimiter)
    return from_tables("csv", train, other, roles)


def read_csv(path: Path, delimiter: str = ",") -> Table:
    """The columns of a CSV file as texts.

    Raises:
        DataError: it is not a table with a header and at least one line; names the line.
    """
    lines: list[int] = []
    rows: list[list[str]] = []
    line = 1
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            _check_header(path, header)
            _check_delimiter(path, header, delimiter)
            line = reader.line_num + 1
            for row in reader:
                if row:
                    if len(row) != len(header):
                        raise DataError(
                            f"{path}:{line}: {len(row)} values, but the header names {len(header)} columns"
                        )
                    rows.append(row)
                    lines.append(line)
                line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"{path}:{line}: {error}; is the file a CSV file, with one sample per line?"
        ) from None
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}:{_line_of_bad_byte(path)}: not UTF-8 text ({error.reason}); save it as UTF-8"
        ) from None
    except OSError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}") from None
    if not rows:
        raise DataError(f"{path} has a header and no line below it; at least one sample is needed")
    columns = dict(zip(header, zip(*rows, strict=True), strict=True))
    return Table(str(path), columns, lambda i: f"{path}:{lines[i]}")


def _check_delimiter(path: Path, header: list[str], delimiter: str) -> None:
    """Refuse a single column that another delimiter would split: it could not hold label and features."""
    other = next((mark for mark in OTHERS if mark in header[0]), None) if len(header) == 1 else None
    if other is not None:
        raise wrong(
            "delimiter",
            f"{path}:1: {header[0][:50]!r} is one column, as {delimiter!r} stands between values; if "
            f"{other!r} does, set `delimiter: {json.dumps(other)}`",
        )


def _line_of_bad_byte(path: Path) -> int:
    """The line of the first byte that is not UTF-8; the reader itself works in blocks of many lines."""
    text = path.read_bytes()
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return text.count(b"\n", 0, error.start) + 1
    return 1


def _check_header(path: Path, header: list[str]) -> None:
    if not header:
        raise DataError(f"{path} is empty; it needs a header with the names of the columns")
    if len(header) > MAX_FEATURES:
        raise DataError(f"{path}:1: {len(header):,} columns; at most {MAX_FEATURES:,} can be read")
    seen: set[str] = set()
    for position, name in enumerate(header):
        if not name or name in seen:
            what = f"column {position + 1} has no name" if not name else f"two columns are called {name!r}"
            raise DataError(f"{path}:1: {what}; the first line is the header and names every column once")
        seen.add(name)
