"""The file of a durable ledger: opening it, its tables, transactions, and advice for every error."""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..core.errors import LedgerError
from ..core.files import refuse_name, why
from ..core.sqlite_file import connect, cut_short, damage, foreign_part

log = logging.getLogger(__name__)

#: Marks the file as a ledger ("FGLD").
APPLICATION_ID = 0x46474C44
#: The version of the tables.
SCHEMA_VERSION = 1
#: Upper bound on the bytes of a row: twice an escaped id of 1,000 characters, plus texts of 500.
_LONGEST = 2**20
#: Seconds for which another process may still be creating the tables of an empty file.
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

#: A client's strikes that are not forgiven, latest first.
STRIKES = (
    "SELECT round FROM verdicts WHERE client = ? AND suspect AND NOT forgiven ORDER BY round DESC LIMIT ?"
)
#: Store a verdict. It replaces a verdict of the same round, but never a strike by a verdict without one.
JUDGE = (
    "INSERT INTO verdicts (client, round, score, suspect, reason) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT DO UPDATE SET score = excluded.score, suspect = excluded.suspect, reason = excluded.reason "
    "WHERE excluded.suspect OR NOT suspect"
)
#: Update a client's counts after a verdict.
COUNT = (
    "UPDATE clients SET rounds = rounds + ?, judged_since_ban = judged_since_ban + ?, last_score = ?, "
    "last_round = max(ifnull(last_round, 0), ?) WHERE client = ?"
)
#: Delete all but the latest verdicts with or without a strike.
PRUNE_VERDICTS = (
    "DELETE FROM verdicts WHERE client = ? AND suspect = ? AND round < (SELECT round FROM verdicts "
    "WHERE client = ? AND suspect = ? ORDER BY round DESC LIMIT 1 OFFSET ?)"
)
#: Delete all but the latest bans by a guard.
PRUNE_ACTIONS = (
    "DELETE FROM actions WHERE client = ? AND by = ? AND action < (SELECT action FROM actions "
    "WHERE client = ? AND by = ? ORDER BY action DESC LIMIT 1 OFFSET ?)"
)
#: Evict clients: strike-free ones first, then those with the oldest last strike; never one that was banned.
FORGET = (
    "DELETE FROM clients WHERE client IN (SELECT client FROM clients WHERE banned_since IS NULL "
    "AND client NOT IN (SELECT client FROM actions) ORDER BY (SELECT max(round) FROM verdicts "
    "WHERE verdicts.client = clients.client AND suspect AND NOT forgiven) NULLS FIRST, rounds, client "
    "LIMIT ?)"
)
#: Prefixes of SQLite's error names → what is wrong; what to do.
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
        "is damaged or not a ledger ({error}); restore a backup, or save what can be read with "
        "`sqlite3 FILE .recover`: a new file would start without any bans",
    ),
    (
        ("SQLITE_INTERRUPT", "SQLITE_TOOBIG"),
        "was not written by FedGuard ({error}: reading its contents takes far too much time or memory); "
        "restore a backup",
    ),
    (
        ("SQLITE_BUSY", "SQLITE_LOCKED"),
        "has been locked by another process for more than {timeout:g} s; end that process, or wait, and "
        "try again: nothing was written",
    ),
)


class LedgerFile:
    """A SQLite file in WAL mode. Every transaction opens it anew, so that it is safe with threads and forks.

    Args:
        path: the file; its folder must exist.
        timeout: seconds to wait for other writers.
        read_only: never create or change the file.

    Raises:
        LedgerError: the file cannot be opened, is damaged, is not a ledger, or is of a newer FedGuard.
    """

    def __init__(self, path: Path, timeout: float, read_only: bool = False) -> None:
        self.path = path
        try:
            refuse_name(path)
        except OSError as error:
            raise LedgerError(f"ledger {path}: {why(error)}; use another path") from None
        self._real = Path(os.path.realpath(path))  # SQLite puts its log beside the target of a link
        self.timeout = timeout
        self.read_only = read_only
        if not path.parent.is_dir():
            raise LedgerError(f"ledger {path}: there is no folder {path.parent}; create it first")
        if not path.exists():
            if read_only:
                raise LedgerError(
                    f"ledger {path}: there is no such file; a guard with this ledger creates it"
                )
            self._create()
        if not path.is_file():
            raise LedgerError(f"ledger {path} is not a file; use another path")
        if cut_short(self._real):
            raise self._said(_ADVICE[2][1], "it is cut short")
        self._check()

    @contextmanager
    def transaction(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        """A connection inside an atomic transaction that reads one consistent snapshot.

        Raises:
            LedgerError: SQLite could not read or write; nothing was written.
        """
        with self._errors(), closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            self._refuse_foreign(db)  # every time, since the file may have been replaced
            yield db
            db.execute("COMMIT")  # without it, closing rolls back

    def _connect(self, mode: str = "rw") -> sqlite3.Connection:
        options = ""
        if self.read_only and not self._log().exists() and not _writable(self._real.parent):
            options = "&immutable=1"  # otherwise SQLite needs to create its log beside the file
        db = connect(self._real, "ro" if self.read_only else mode, _LONGEST, self.timeout, options)
        db.execute("PRAGMA synchronous = FULL")  # a committed round survives a power failure
        db.execute("PRAGMA foreign_keys = ON")
        return db

    def _log(self) -> Path:
        """The write-ahead log; it exists while a process has the file open, and after a crash."""
        return self._real.with_name(self._real.name + "-wal")

    def empty_log(self) -> None:
        """Move the log into the file and empty it, unless another process is reading: then it does so later.

        Raises:
            LedgerError: SQLite could not write.
        """
        with self._errors(), closing(self._connect()) as db:
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()

    def _create(self) -> None:
        """Create the tables in an empty file; several processes may do so at once."""
        with self._errors(), closing(self._connect("rwc")) as db:
            _switch_to_wal(db, self.timeout)
            db.execute("BEGIN IMMEDIATE")
            if not db.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in _TABLES.split(";"):
                    db.execute(statement)
            db.execute("COMMIT")

    def _check(self) -> None:
        """Reject a file that is damaged, not a ledger, of a newer FedGuard, or not writable."""
        with self._errors(), closing(self._connect()) as db:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (version,) = db.execute("PRAGMA user_version").fetchone()
            blank = not db.execute("SELECT 1 FROM sqlite_master").fetchone()
            damaged = damage(db)
        if damaged:
            raise self._said(_ADVICE[2][1], damaged)
        if blank and application == 0 and not self.read_only:  # its creator was killed, or is not done yet
            if time.time() - self._real.stat().st_mtime > _FRESH:
                log.warning("ledger %s is empty: it begins without any ban", self.path)
            self._create()
            application, version = APPLICATION_ID, SCHEMA_VERSION
        if application != APPLICATION_ID:
            raise self._said("is not a ledger but another SQLite file; use another path")
        if version != SCHEMA_VERSION:
            raise self._said(
                f"has version {version} of the tables, this FedGuard supports {SCHEMA_VERSION}; install the "
                "FedGuard that wrote it, or a newer one"
            )
        with self.transaction(write=not self.read_only) as db:
            if not self.read_only:
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")  # tests that the file is writable

    def _refuse_foreign(self, db: sqlite3.Connection) -> None:
        """Reject a schema other than ours: views and triggers can run arbitrary SQL."""
        foreign = foreign_part(db, _TABLES)
        if foreign:
            raise self.wrong(f"it has {foreign}")

    def wrong(self, what: str) -> LedgerError:
        """The error for content that FedGuard never writes."""
        return self._said(f"was not written by FedGuard: {what}; restore a backup")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Convert SQLite's errors to LedgerErrors that say what to do."""
        try:
            yield
        except (sqlite3.Error, OverflowError, UnicodeError) as error:
            name = getattr(error, "sqlite_errorname", "")
            advice = [text for names, text in _ADVICE if name.startswith(names)]
            raise self._said(advice[0] if advice else "{error}; nothing was written", str(error)) from error

    def _said(self, text: str, error: str = "") -> LedgerError:
        for name, value in (("{error}", error), ("{timeout:g}", f"{self.timeout:g}")):
            text = text.replace(name, value)  # not str.format: the text may hold other braces
        return LedgerError(f"ledger {self.path} {text}")


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def _switch_to_wal(db: sqlite3.Connection, timeout: float) -> None:
    """Turn the write-ahead log on, retrying, since SQLite does not wait for other processes here."""
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
