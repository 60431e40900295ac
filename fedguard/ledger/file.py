"""The file of a durable ledger: opening, tables, transactions, and what to do when it cannot be used."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..core.errors import LedgerError
from ..core.sqlite_file import connect, cut_short, damage, foreign_part

log = logging.getLogger(__name__)

#: Marks the file as a ledger ("FGLD").
APPLICATION_ID = 0x46474C44
#: The version of the tables.
SCHEMA_VERSION = 1
#: The most bytes of a row: an id of 1,000 characters, escaped, twice, and texts of 500.
_LONGEST = 2**20
#: Seconds for which an empty file may be on its way to be a ledger.
_FRESH = 10.0

_TABLES = f"""
CREATE TABLE clients (
    client INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, id TEXT NOT NULL,
    rounds INTEGER NOT NULL DEFAULT 0, judged_since_ban INTEGER NOT NULL DEFAULT 0,
    last_round INTEGER, last_score REAL,
    banned_since INTEGER, banned_until INTEGER, ban_reason TEXT NOT NULL DEFAULT ''
);
CREATE TABLE verdicts (
    client INTEGER NOT NULL REFERENCES clients ON DELETE CASCADE, round INTEGER NOT NULL,
    score REAL, suspect INTEGER NOT NULL, forgiven INTEGER NOT NULL DEFAULT 0, reason TEXT NOT NULL,
    PRIMARY KEY (client, round)
) WITHOUT ROWID;
CREATE TABLE actions (
    action INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL,
    client INTEGER NOT NULL REFERENCES clients, what TEXT NOT NULL,
    since INTEGER, until INTEGER, by TEXT NOT NULL, why TEXT NOT NULL
);
CREATE INDEX actions_of_client ON actions (client);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
"""

#: A client's strikes that count, the latest first.
STRIKES = (
    "SELECT round FROM verdicts WHERE client = ? AND suspect AND NOT forgiven ORDER BY round DESC LIMIT ?"
)
#: A verdict; one of the same round is replaced, unless it is a strike and the new one is none.
JUDGE = (
    "INSERT INTO verdicts (client, round, score, suspect, reason) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET score = excluded.score, suspect = excluded.suspect, reason = excluded.reason "
    "WHERE excluded.suspect OR NOT suspect"
)
#: A client's numbers after a verdict.
COUNT = (
    "UPDATE clients SET rounds = rounds + ?, judged_since_ban = judged_since_ban + ?, last_score = ?, "
    "last_round = max(ifnull(last_round, 0), ?) WHERE client = ?"
)
#: Drop all but the latest verdicts of a kind.
PRUNE_VERDICTS = (
    "DELETE FROM verdicts WHERE client = ? AND suspect = ? AND round < (SELECT round FROM verdicts "
    "WHERE client = ? AND suspect = ? ORDER BY round DESC LIMIT 1 OFFSET ?)"
)
#: Drop all but a guard's latest bans.
PRUNE_ACTIONS = (
    "DELETE FROM actions WHERE client = ? AND by = ? AND action < (SELECT action FROM actions "
    "WHERE client = ? AND by = ? ORDER BY action DESC LIMIT 1 OFFSET ?)"
)
#: Drop clients: no strikes first, then the oldest last strike; nobody who was ever banned or unbanned.
FORGET = (
    "DELETE FROM clients WHERE client IN (SELECT client FROM clients WHERE banned_since IS NULL "
    "AND client NOT IN (SELECT client FROM actions) ORDER BY (SELECT max(round) FROM verdicts "
    "WHERE verdicts.client = clients.client AND suspect AND NOT forgiven) NULLS FIRST, rounds, client "
    "LIMIT ?)"
)

#: Beginnings of SQLite's error names → what is the matter, what to do.
_ADVICE = (
    (
        ("SQLITE_FULL", "SQLITE_IOERR"),
        "cannot be written ({error}); free space on its disk (or repair it) and try again: nothing was "
        "written",
    ),
    (
        ("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM", "SQLITE_AUTH"),
        "cannot be opened for this ({error}); check that the file is there and that this user may write it "
        "and its folder",
    ),
    (
        ("SQLITE_NOTADB", "SQLITE_CORRUPT"),
        "is damaged or no ledger ({error}); put a backup in its place, or save what can be read with "
        "`sqlite3 FILE .recover`: a new file would start without any ban",
    ),
    (
        ("SQLITE_INTERRUPT", "SQLITE_TOOBIG"),
        "is no ledger that FedGuard wrote ({error}: what it holds takes far too long, or too much, to read); "
        "put a backup in its place",
    ),
    (
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        "has been locked by another process for more than {timeout:g} s; end that process, or wait, and "
        "try again: nothing was written",
    ),
)


class LedgerFile:
    """A SQLite file in WAL mode. Every transaction opens it anew: threads and forks need no care.

    Args:
        path: the file; its folder exists.
        timeout: seconds to wait for other writers.
        read_only: never create or change it.

    Raises:
        LedgerError: it cannot be opened, is damaged, no ledger, or of a newer FedGuard.
    """

    def __init__(self, path: Path, timeout: float, read_only: bool = False) -> None:
        self.path = path
        self._real = Path(os.path.realpath(path))  # SQLite keeps its log there, not beside a link
        self.timeout = timeout
        self.read_only = read_only
        if not path.parent.is_dir():
            raise LedgerError(f"ledger {path}: there is no folder {path.parent}; create it first")
        if not path.exists():
            if read_only:
                raise LedgerError(f"ledger {path}: there is no such file; a guard with this ledger makes it")
            self._create()
        if not path.is_file():
            raise LedgerError(f"ledger {path} is no file; name another")
        if cut_short(self._real):
            raise self._said(_ADVICE[2][1], "it is cut short")
        self._check()

    @contextmanager
    def transaction(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection in which everything is seen at one moment, and written as a whole or not at all.

        Raises:
            LedgerError: SQLite could not read or write; nothing was written.
        """
        with self._errors(), closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            self._refuse_foreign(db)  # every time: another file may have taken its place
            yield db
            db.execute("COMMIT")  # closing without it takes everything back

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        options = ""
        if self.read_only and not self._log().exists() and not _writable(self._real.parent):
            options = "&immutable=1"  # without it SQLite wants to put its log beside the file
        db = connect(self._real, "ro" if self.read_only else mode, _LONGEST, self.timeout, options)
        db.execute("PRAGMA synchronous = FULL")  # an acknowledged round survives a power cut
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def _log(self) -> Path:
        """The write-ahead log; it is there while a process has the file open, and after a crash."""
        return self._real.with_name(self._real.name + "-wal")

    def _create(self) -> None:
        """Make an empty file a ledger; several processes may try it at once."""
        with self._errors(), closing(self._connect("rwc")) as db:
            _switch_to_wal(db, self.timeout)
            db.execute("BEGIN IMMEDIATE")
            if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";"):
                    db.execute(statement)
            db.execute("COMMIT")

    def _check(self) -> None:
        """Refuse a file that is damaged, foreign, of a newer FedGuard, or not to be written."""
        with self._errors(), closing(self._connect()) as db:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            blank = not db.execute("SELECT 1 FROM sqlite_master").fetchone()
            damaged = damage(db)
        if damaged:
            raise self._said(_ADVICE[2][1], damaged)
        if blank and application == 0 and not self.read_only:  # left by a process killed while it began
            if time.time() - self._real.stat().st_mtime > _FRESH:  # else another guard is just making it
                log.warning("ledger %s is empty: it begins without any ban", self.path)
            self._create()
            application, version = APPLICATION_ID, SCHEMA_VERSION
        if application != APPLICATION_ID:
            raise self._said("is no ledger of FedGuard but another SQLite file; name another file")
        if version != SCHEMA_VERSION:
            raise self._said(
                f"has version {version} of the tables, this FedGuard knows {SCHEMA_VERSION}; install the "
                "FedGuard that wrote it, or a newer one"
            )
        with self.transaction(write=not self.read_only) as db:
            if not self.read_only:
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # finds out that it can be written

    def _refuse_foreign(self, db: sqlite3.Connection) -> None:
        """Refuse tables that are not ours: they may be views or triggers, which are programs."""
        foreign = foreign_part(db, _TABLES)
        if foreign:
            raise self.wrong(f"it has {foreign}")

    def wrong(self, what: str) -> LedgerError:
        """The error about a value that FedGuard never writes."""
        return self._said(f"is no ledger that FedGuard wrote: {what}; put a backup in its place")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """SQLite's errors as errors of the ledger that say what to do."""
        try:
            yield
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            name = getattr(error, "sqlite_errorname", "")
            advice = [text for names, text in _ADVICE if name.startswith(names)]
            raise self._said(advice[0] if advice else "{error}; nothing was written", str(error)) from error

    def _said(self, text: str, error: str = "") -> LedgerError:
        for name, value in (("{error}", error), ("{timeout:g}", f"{self.timeout:g}")):
            text = text.replace(name, value)  # a text may hold braces of its own
        return LedgerError(f"ledger {self.path} {text}")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _switch_to_wal(db: sqlite3.Connection, timeout: float) -> None:
    """Turn the write-ahead log on; SQLite does not wait for other processes here, so this does."""
    end = time.monotonic() + timeout
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > end:
                raise
            time.sleep(0.01)
        else:
            return
