"""Texts from CSV files, JSON Lines, or folders with one folder per class."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DataError
from ...core.files import is_file, is_folder
from ...core.params import nearest
from .csv_file import read_csv
from .files import own_file
from .split import TEST_SHARE, split
from .table import Table, wrong
from .tokens import Texts, class_names

#: The most bytes of a file, and of one text in a folder.
MAX_BYTES, MAX_TEXT = 2**30, 2**24


def read_texts(path: str, columns: tuple[str, str], client: str | None, key: str) -> Texts:
    """The texts of a CSV file, or of a JSON Lines file (.jsonl, .ndjson).

    Args:
        path: the file.
        columns: the columns, or keys, of the texts and of their labels.
        client: the column of the natural clients, if there are any.
        key: the data set's parameters that name the columns, for messages: "text label".

    Raises:
        DataError: a value is missing; names file, line and column.
        ParameterError: there is no such column.
    """
    file = own_file(path, MAX_BYTES)
    table = read_json_lines(file) if file.suffix in (".jsonl", ".ndjson") else read_csv(file)
    wanted = dict(zip(key.split(), columns, strict=True)) | ({"client": client} if client else {})
    values = {role: _column(table, role, name) for role, name in wanted.items()}
    texts, labels, *clients = values.values()
    return Texts(table.where, texts, labels, clients[0] if clients else None, table.place)


def _column(table: Table, role: str, name: str) -> list[str]:
    if name not in table.columns:
        known = ", ".join(list(table.columns)[:20])
        raise wrong(
            role, f"{table.where} has no column {name!r}{nearest(name, table.columns)} (it has {known})"
        )
    values = [_as_text(value) for value in table.columns[name]]
    empty = next((i for i, value in enumerate(values) if not value), None)
    if empty is not None:
        raise DataError(f"{table.place(empty)}: column {name!r} is empty, or holds no text; fill it in")
    return values


def _as_text(value: Any) -> str:
    """A text without space around it; a whole number or a yes-or-no value in digits; else nothing."""
    if isinstance(value, bool | int):
        return str(int(value))
    return value.strip() if isinstance(value, str) else ""


def read_json_lines(path: Path) -> Table:
    """The columns of a JSON Lines file: one object per line, all with the same keys.

    Raises:
        DataError: a line is no such object; names it.
    """
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    rows.append(_object(path, number, line))
                    lines.append(number)
                    if rows[-1].keys() != rows[0].keys():
                        other = sorted(rows[-1].keys() ^ rows[0].keys())[0]
                        raise DataError(
                            f"{path}:{number}: its keys are not those of line {lines[0]}; see {other!r}"
                        )
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    if not rows:
        raise DataError(f"{path} has no lines; at least one text is needed")
    return Table(
        str(path), {key: [row[key] for row in rows] for key in rows[0]}, lambda i: f"{path}:{lines[i]}"
    )


def _object(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}:{number}: not JSON ({error}); write one object per line") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}:{number}: a {type(found).__name__}; write one object per line")
    return found


def read_folder(root: Path, encoding: str) -> Texts:
    """The texts of ``root/CLASS/*``, one per file, in the order of their names.

    Raises:
        DataError: a file cannot be read; names it.
        ParameterError: there is no such encoding.
    """
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise wrong("encoding", f"there is no encoding {encoding!r}; use utf-8 or latin1") from None
    folders = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    files = [p for folder in folders for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    if not files:
        raise DataError(f"{root} holds no folders with files; each class needs a folder of texts")
    texts = [_read(file, encoding) for file in files]
    return Texts(str(root), texts, [file.parent.name for file in files], None, lambda i: str(files[i]))


def _read(path: Path, encoding: str) -> str:
    if not is_file(path):  # opening a pipe would wait for ever
        raise DataError(f"{path} is no file; remove it")
    if path.stat().st_size > MAX_TEXT:
        raise DataError(f"{path} has more than {MAX_TEXT >> 20} MiB; one file holds one text")
    try:
        return path.read_text(encoding)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; set `encoding`, for example latin1") from None


def parted(
    path: str,
    test: float | None,
    test_path: str | None,
    read: Callable[[str], Texts],
    stratified: bool = True,
) -> tuple[Texts, Texts]:
    """The training and the test texts: of two files, of the folders train and test, or split.

    Raises:
        ParameterError: ``test`` is given twice.
    """
    root = Path(path).expanduser()
    if test_path is None and is_folder(root / "train") and is_folder(root / "test"):
        path, test_path = str(root / "train"), str(root / "test")
    if test is not None and test_path is not None:
        raise wrong("test", f"the test texts are those of {test_path}; leave `test` out")
    train = read(path)
    if test_path is not None:
        return train, read(test_path)
    share = TEST_SHARE if test is None else test
    if not stratified:
        rows = split(len(train.texts), share, train.where)
        return train.take(rows[0]), train.take(rows[1])
    names = class_names(train)
    numbers = {name: k for k, name in enumerate(names)}
    labels = np.array([numbers[label] for label in train.labels])
    rows = split(labels, share, train.where, names)
    return train.take(rows[0]), train.take(rows[1])
