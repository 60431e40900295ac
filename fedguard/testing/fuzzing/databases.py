"""Untrusted SQLite files: changed values, changed schema objects, and changed files beside them."""

# ruff: noqa: S608 - the SQL built here is the hostile input

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from .case import CODE, Rng
from .values import TEXTS, damaged, pick

#: A query that never ends.
ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)"
CELLS: tuple[Any, ...] = (
    None, 0, 1, -1, 2**31, 2**63 - 1, -(2**63), 10**12, 0.5, 1e308, -1e308, float("inf"), float("-inf"),
    b"", b"\x00\xff", b"x" * 3000, "", "x", "nan", "1e999", "null", "[]", "{}", '{"a": 1}', "[1, [2]]", '"x"',
    "[" * 3000, f'{{"name": "{CODE}"}}', "NaN", "1" * 6000, '"\\ud800"', '"\\u001b]0;x\\u0007"',
)  # fmt: skip


def changed_cells(rng: Rng, path: Path) -> str:
    """Change the values of one column, in one row or in all."""
    with Writable(path) as db:
        table = pick(rng, _tables(db))
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        column = pick(rng, columns)
        value = pick(rng, TEXTS) if rng.random() < 0.4 else pick(rng, CELLS)
        value = value.encode(errors="replace").decode() if isinstance(value, str) else value
        which = "" if rng.random() < 0.4 else f" ORDER BY random() LIMIT {int(rng.integers(1, 3))}"
        keys = [row[1] for row in db.execute(f"PRAGMA table_info({table})") if row[5]]
        names = ", ".join(keys)
        if which:
            rows = db.execute(f"SELECT {names} FROM {table}").fetchall()
            rows = [rows[int(i)] for i in rng.integers(len(rows), size=1)] if rows else []
        else:
            rows = [None]
        for row in rows:
            where = "" if row is None else " WHERE " + " AND ".join(f"{k} IS ?" for k in keys)
            db.execute(f"UPDATE OR REPLACE {table} SET {column} = ?{where}", (value, *(row or ())))
    return f"{table}.{column} is {str(value)[:20]!r}" + (" somewhere" if which else " everywhere")


def like_cells(rng: Rng, path: Path) -> str:
    """Change the values of one column to others of the same type."""
    with Writable(path) as db:
        table = pick(rng, _tables(db))
        info = [row for row in db.execute(f"PRAGMA table_info({table})") if not row[5]]
        if not info:
            return "nothing"
        _, column, kind, *_ = pick(rng, info)
        numbers = (0, 1, -1, 3, 1000, 2**40, 2**63 - 1, 10**15)
        values: Sequence[Any] = {
            "INTEGER": numbers,
            "REAL": (0.0, 1.0, -1.0, 0.5, 1e300, -1e300, float("inf"), 1e-300),
        }.get(kind, [text for text in TEXTS if "\ud800" not in text])
        value = pick(rng, values)
        db.execute(f"UPDATE OR IGNORE {table} SET {column} = ?", (value,))
    return f"{table}.{column} is {str(value)[:20]!r}"


def other_schema(rng: Rng, path: Path) -> str:
    """Change views, triggers, indexes and tables."""
    with Writable(path) as db:
        tables = _tables(db)
        table = pick(rng, tables)
        names = ", ".join(row[1] for row in db.execute(f"PRAGMA table_info({table})"))
        columns = names.split(", ")
        some = pick(rng, columns)
        view = f"ALTER TABLE {table} RENAME TO kept; CREATE VIEW {table} AS "
        event = pick(rng, ("AFTER INSERT", "BEFORE INSERT", "AFTER UPDATE", "BEFORE UPDATE", "AFTER DELETE"))
        trigger = f"CREATE TRIGGER t {event} ON {table} BEGIN "
        scripts = (
            view + "SELECT * FROM kept;",
            view + f"{ENDLESS} SELECT kept.* FROM kept, n;",
            view + f"SELECT {', '.join(f'({ENDLESS} SELECT count(*) FROM n) AS {c}' for c in columns)};",
            view + f"SELECT {', '.join(f'zeroblob(1000000000) AS {c}' for c in columns)};",
            view + f"SELECT kept.* FROM kept {' '.join(f'JOIN kept AS k{i}' for i in range(30))};",
            view + f"SELECT * FROM {table};",
            trigger + f"DELETE FROM {pick(rng, tables)}; END;",
            trigger + f"SELECT ({ENDLESS} SELECT count(*) FROM n); END;",
            trigger + "SELECT RAISE(ABORT, 'no'); END;",
            trigger + "SELECT RAISE(IGNORE); END;",
            trigger + f"UPDATE {table} SET {some} = randomblob(1000000); END;",
            trigger + f"INSERT INTO nowhere SELECT {ENDLESS} SELECT 1; END;",
            trigger + "SELECT load_extension('x'); END;",
            f"CREATE INDEX i ON {table} ({some}, abs({some}));",
            f"DROP TABLE {table};",
            f"ALTER TABLE {table} RENAME TO other;",
            f"ALTER TABLE {table} RENAME COLUMN {some} TO other;",
            f"ALTER TABLE {table} ADD COLUMN other GENERATED ALWAYS AS (randomblob(9)) VIRTUAL;",
            f"CREATE TABLE more (x); INSERT INTO more {ENDLESS} SELECT i FROM n LIMIT 5000;",
            f"DELETE FROM {table};",
            f"CREATE TABLE again AS SELECT * FROM {table}; DROP TABLE {table}; "
            f"ALTER TABLE again RENAME TO {table};",
            f"PRAGMA user_version = {int(rng.integers(-3, 9))};",
            f"PRAGMA application_id = {int(rng.integers(-3, 9))};",
            "PRAGMA journal_mode = DELETE;",
            "PRAGMA page_size = 512; PRAGMA journal_mode = DELETE; VACUUM;",
        )
        script = pick(rng, scripts)
        try:
            db.executescript(script)
        except sqlite3.Error:  # conflicts with an earlier change
            return "nothing"
    return str(script[:110])


def written_schema(rng: Rng, path: Path) -> str:
    """Change the text of the schema itself, bypassing SQLite's checks."""
    with Writable(path) as db:
        rows = db.execute("SELECT rowid, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        if not rows:
            return "nothing"
        row, sql = pick(rng, rows)
        change = pick(
            rng,
            (
                lambda s: s.replace("INTEGER", pick(rng, ("TEXT", "BLOB", "REAL", ""))),
                lambda s: s.replace(" WITHOUT ROWID", ""),
                lambda s: s.replace("TEXT", "INTEGER CHECK (0)"),
                lambda s: damaged(rng, s.encode()).decode(errors="replace"),
                lambda s: s.replace("PRIMARY KEY", ""),
                lambda s: "CREATE VIRTUAL TABLE x USING nowhere",
            ),
        )
        db.execute("PRAGMA writable_schema = ON")
        db.execute("UPDATE sqlite_master SET sql = ? WHERE rowid = ?", (change(sql), row))
    return f"schema: {change(sql)[:60]!r}"


def beside(rng: Rng, path: Path) -> str:
    """Replace or remove the write-ahead log or journal beside the file."""
    log = path.with_name(path.name + pick(rng, ("-wal", "-shm", "-journal")))
    if log.exists() and rng.random() < 0.5:
        log.unlink()
        return f"{log.name} removed"
    if log.exists():
        log.write_bytes(damaged(rng, log.read_bytes()))
        return f"{log.name} damaged"
    log.write_bytes(pick(rng, (b"", rng.bytes(4096), b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7" + rng.bytes(600))))
    return f"{log.name} of something else"


#: Changes that leave the file valid, and changes that may not.
CHANGES: tuple[Callable[[Rng, Path], str], ...] = (
    changed_cells, changed_cells, changed_cells, like_cells, like_cells, other_schema, other_schema,
    other_schema, written_schema,
)  # fmt: skip


def is_whole(path: Path, tables: Sequence[str], numbers: Sequence[tuple[str, int]]) -> bool:
    """Whether it is a valid SQLite file with these tables (or views) and header numbers."""
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.1)) as db:
            db.set_progress_handler(lambda: 1, 2_000_000)
            if any(db.execute(f"PRAGMA {name}").fetchone()[0] != number for name, number in numbers):
                return False
            there = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
            return there >= set(tables) and db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
    except (sqlite3.Error, OSError, UnicodeDecodeError):  # a name may be no text
        return False


class Writable:
    """A connection that enforces no constraints and commits at the end."""

    def __init__(self, path: Path) -> None:
        self.db = sqlite3.connect(path, timeout=0.5)
        self.db.set_progress_handler(lambda: 1, 1_000_000)  # earlier changes may make a query endless
        self.db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2**20)
        self.db.execute("PRAGMA foreign_keys = OFF")
        self.db.execute("PRAGMA ignore_check_constraints = ON")
        self.db.execute("PRAGMA synchronous = OFF")
        self.db.execute("PRAGMA legacy_alter_table = ON")

    def __enter__(self) -> sqlite3.Connection:
        return self.db

    def __exit__(self, *error: object) -> None:
        self.db.commit()
        self.db.close()


def _tables(db: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    return [row[0] for row in db.execute(query)]
