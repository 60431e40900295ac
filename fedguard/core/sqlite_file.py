"""Open SQLite files from untrusted sources; refuse them unless they hold exactly our tables.

A SQLite file can hold code: views that never end, triggers, computed columns. None of it runs, because the
schema is compared with ours before any other query. The remaining queries take time proportional to the size
of the file, and every statement has a step limit.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

#: Steps of SQLite's virtual machine (about 10 ns each) between two checks of the limit.
_STRIDE = 10_000
#: The step limit of a statement: a constant, plus this number per byte of the file. Our statements take less
#: than one step per byte. Unlike seconds, steps do not depend on the load of the machine.
_STEPS, _STEPS_PER_BYTE = 10_000_000, 20
#: The size of the smallest page in bytes.
_LEAST_PAGE = 512


class Connection(sqlite3.Connection):
    """A connection that interrupts a statement (``SQLITE_INTERRUPT``) after a limited number of steps."""

    _allowed = _STEPS
    _left = _STEPS

    def bound(self, size: int) -> None:
        """Set the step limit for a file of ``size`` bytes."""
        self._allowed = _STEPS + _STEPS_PER_BYTE * size
        self.set_progress_handler(self._tick, _STRIDE)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor; resets the step count."""
        self._left = self._allowed
        return super().cursor(*args, **kwargs)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Run a statement; resets the step count."""
        self._left = self._allowed
        return super().execute(*args)

    def _tick(self) -> bool:
        self._left -= _STRIDE
        return self._left < 0


def connect(path: Path, mode: str, longest: int, timeout: float = 30.0, options: str = "") -> Connection:
    """Open a file in autocommit mode; the caller manages transactions.

    Args:
        path: the file.
        mode: "ro", "rw" or "rwc", as in SQLite's URIs.
        longest: the maximum number of bytes of a value or a row, see ``SQLITE_LIMIT_LENGTH``.
        timeout: seconds to wait for other processes.
        options: further URI parameters, for example ``&immutable=1``.

    Raises:
        sqlite3.Error: it cannot be opened.
    """
    uri = f"file:{quote(str(path.absolute()))}?mode={mode}{options}"
    db = sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None, factory=Connection)
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, longest)
    db.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    setconfig = getattr(db, "setconfig", None)
    if setconfig is not None:  # Python 3.12
        setconfig(getattr(sqlite3, "SQLITE_DBCONFIG_DEFENSIVE"), True)  # noqa: B009 - the types are 3.11's
    db.bound(_size(path) + _size(path.with_name(f"{path.name}-wal")))
    db.execute("PRAGMA trusted_schema = OFF")
    return db


def cut_short(path: Path) -> bool:
    """Whether a file ends within a page, which SQLite itself would read as zeros, or as an empty file.

    False while there is a log, since a page may not be written yet, and for an unreadable file, which SQLite
    reports.
    """
    if any(_size(path.with_name(path.name + end)) for end in ("-wal", "-journal")):
        return False
    size = _size(path)
    if size < _LEAST_PAGE:
        return size > 0
    try:
        with path.open("rb") as file:
            header = file.read(18)
    except OSError:
        return False
    page = int.from_bytes(header[16:], "big")
    return (
        header.startswith(b"SQLite format 3\0") and size % (2**16 if page == 1 else page or 1) > 0
    )  # SQLite writes 65,536 as 1


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


Schema = frozenset[tuple[str, str, str, str]]


@functools.cache
def schema_of(script: str) -> Schema:
    """The content of ``sqlite_master`` after a script that creates tables."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(script)
        return _schema(db.execute(_MASTER))


def foreign_part(db: sqlite3.Connection, script: str) -> str:
    """The first difference between a file's schema and a script's tables, in words; empty if they are equal.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    wanted, found = schema_of(script), _schema(db.execute(_MASTER).fetchmany(1000))
    for kind, name, _, text in sorted(found - wanted):
        if kind != "table" or not name.startswith("sqlite_stat"):  # which ANALYZE makes
            known = {(k, n) for k, n, _, _ in wanted}
            return f"{kind} {name[:60]!r}{' as it should not be' if text and (kind, name) in known else ''}"
    missing = sorted(wanted - found)
    return f"no {missing[0][0]} {missing[0][1]}" if missing else ""


def damage(db: sqlite3.Connection) -> str:
    """The damage in a file, in SQLite's words; empty if there is none. Takes time proportional to its size.

    This check also finds a cyclic tree, which other queries would read without end.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    return "" if verdict == "ok" else str(verdict).splitlines()[-1]


_MASTER = "SELECT type, name, tbl_name, ifnull(sql, '') FROM sqlite_master"


def _schema(rows: Iterable[tuple[Any, ...]]) -> Schema:
    return frozenset(
        (str(kind), str(name), str(table), " ".join(str(sql).split())) for kind, name, table, sql in rows
    )
