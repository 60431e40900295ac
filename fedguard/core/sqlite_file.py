"""SQLite files that somebody else may have written: opened with care, refused unless they hold our tables.

A file of SQLite can hold programs: views that never end, triggers, computed columns. None of them is run,
because the tables are compared with ours before anything else is asked. What is left costs time in proportion
to the file, and every statement has a bound on that as well.
"""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

#: Steps of SQLite's virtual machine (some 10 ns each) between two looks at the bound.
_STRIDE = 10_000
#: The steps that a statement may take: so many, and so many per byte of the file. A statement of ours takes
#: less than one per byte. Steps, unlike seconds, do not depend on how busy the machine is.
_STEPS, _STEPS_PER_BYTE = 10_000_000, 20
#: The bytes of the smallest page.
_LEAST_PAGE = 512


class Connection(sqlite3.Connection):
    """A connection whose statements end, with ``SQLITE_INTERRUPT``, after a bounded number of steps."""

    _allowed = _STEPS
    _left = _STEPS

    def bound(self, size: int) -> None:
        """Bound statements as suits a file of ``size`` bytes."""
        self._allowed = _STEPS + _STEPS_PER_BYTE * size
        self.set_progress_handler(self._tick, _STRIDE)

    def cursor(self, *args: Any, **kwargs: Any) -> Any:
        """A cursor; the count begins anew."""
        self._left = self._allowed
        return super().cursor(*args, **kwargs)

    def execute(self, *args: Any) -> sqlite3.Cursor:
        """Run a statement; the count begins anew."""
        self._left = self._allowed
        return super().execute(*args)

    def _tick(self) -> bool:
        self._left -= _STRIDE
        return self._left < 0


def connect(path: Path, mode: str, longest: int, timeout: float = 30.0, options: str = "") -> Connection:
    """Open a file; transactions are the caller's.

    Args:
        path: the file.
        mode: ro, rw or rwc, as in SQLite's URIs.
        longest: the most bytes of a value or a row, see ``SQLITE_LIMIT_LENGTH``.
        timeout: seconds to wait for other processes.
        options: more of the URI, for example ``&immutable=1``.

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

    While there is a log, a page may be on its way. What cannot be read is left for SQLite to report.
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
    """What a script that creates tables leaves in ``sqlite_master``."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(script)
        return _schema(db.execute(_MASTER))


def foreign_part(db: sqlite3.Connection, script: str) -> str:
    """What the file holds beyond, or lacks of, the tables of a script, in words; empty if nothing.

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
    """What is damaged in the file, in SQLite's words; empty if nothing. Takes time in proportion to it.

    A damaged tree could also hold itself and be read for ever.

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
