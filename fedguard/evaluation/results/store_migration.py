"""Rewrite a results file of an older version of the tables as one of the current version."""

from __future__ import annotations

import errno
import json
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from filelock import FileLock, Timeout

from ...core.files import refuse_link, write_atomically
from ...core.sqlite_file import connect
from .store_tables import SCHEMA_VERSION, tables

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
#: How many seconds another process that has opened the same old results may take to rewrite them.
_PATIENCE = 2.0
#: What is put in columns that a table of an older version lacks: SQL on the columns that it has. Before
#: version 2, attackers attacked whenever they were asked, and kept their ids; before version 4, a suite was
#: one point and closed. Metrics that no version before computed stay NULL.
_MISSING = {
    "id": "CAST(client AS TEXT)",
    "attacking": "malicious AND participated",
    "point": "'{}'",
    "mode": "'closed'",
}


def migrate(path: Path, longest: int) -> TemporaryDirectory[str] | None:
    """Rewrite an old file, whose tables have been checked, in place.

    The rows are copied to a new file, which then takes the place of the old one: whatever happens, one of
    them is there, and whole.

    Args:
        path: the file.
        longest: the most bytes of a value.

    Returns:
        If the folder cannot be written, or a process of an older version is writing to it, a temporary folder
        with the new file; it lives as long as the object.

    Raises:
        OSError: there is no room for the new file.
        sqlite3.Error: the old file cannot be read.
    """
    lock = path.with_name("lock")
    try:
        refuse_link(lock)
        with FileLock(lock, timeout=_PATIENCE):
            if version_of(path, longest) != SCHEMA_VERSION:  # nobody was faster
                write_atomically(path, lambda fresh: _copy(path, fresh, longest))
        return None
    except Timeout:
        pass
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
    beside = TemporaryDirectory(prefix="fedguard-migrated-")
    _copy(path, Path(beside.name) / path.name, longest)
    return beside


def version_of(path: Path, longest: int) -> int:
    """The version of a file's tables.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    with closing(connect(path, "rw", longest)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def _copy(path: Path, to: Path, longest: int) -> None:
    with closing(connect(path, "rw", longest)) as old, closing(sqlite3.connect(to)) as new:
        new.executescript(tables(SCHEMA_VERSION))
        old.execute("BEGIN")  # one state of the file, whoever writes to it meanwhile
        there = {table: _columns(old, table) for table in ("meta", "runs", "clients", "rounds", "timings")}
        for table, names in there.items():
            added = [name for name in _columns(new, table) if name in _MISSING and name not in names]
            if names:
                wanted = [*names, *(_MISSING[name] for name in added)]
                rows = old.execute(f"SELECT {', '.join(wanted)} FROM {table}")  # noqa: S608 - our own names
                _insert(new, table, [*names, *added], _mended(rows, [*names, *added]))
        if not there["meta"]:
            new.execute("INSERT INTO meta VALUES ('code', 'unknown')")
        new.commit()


def _columns(db: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in db.execute(f"PRAGMA table_info({table})")]


def _insert(db: sqlite3.Connection, table: str, names: list[str], rows: Iterable[tuple[Any, ...]]) -> None:
    marks = ", ".join("?" * len(names))
    db.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({marks})", rows)  # noqa: S608 - our own names


def _mended(rows: Iterable[tuple[Any, ...]], names: list[str]) -> Iterator[tuple[Any, ...]]:
    """The rows, with settings as the current version writes them."""
    at = names.index("settings") if "settings" in names else None
    for row in rows:
        yield row if at is None else (*row[:at], _settings(row[at]), *row[at + 1 :])


def _settings(text: Any) -> Any:
    """A run's settings, with the keys of a defense that early versions did not have."""
    try:
        settings = json.loads(text)
        defense = {"stages": [], "flcert": None, **settings["defense"]}
        return text if defense == settings["defense"] else json.dumps({**settings, "defense": defense})
    except (ValueError, TypeError, KeyError, RecursionError):
        return text  # readers say what is wrong with it
