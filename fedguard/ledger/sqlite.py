"""A durable ledger: one SQLite file, atomic rounds, several guards at once."""

from __future__ import annotations

import json
import math
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import LedgerError, ParameterError
from .erase import ERASE_OLD, check_forget, erase
from .file import COUNT, FORGET, JUDGE, PRUNE_ACTIONS, PRUNE_VERDICTS, STRIKES, LedgerFile
from .memory import GUARD, REASON, Ledger, Record, check_unban, records_of, report_room
from .rows import WHOLE_OR_NONE, Action, Judgement, action_of, client_id, judgement_of, must, record_of

if TYPE_CHECKING:
    from ..core.ids import ClientId
    from ..core.state import State


class SQLiteLedger(Ledger):
    """A :class:`Ledger` in a SQLite file (WAL mode) that survives ``kill -9`` and power failures.

    A round is written in one transaction and flushed to disk before the guard's ``process`` returns. Guards
    (threads, processes) that share a file share client ids and round numbers: strikes add up, and every guard
    applies all bans from the next round on. A round that is judged again, after a restart from an older
    checkpoint, does not count twice, and its strikes remain.

    Nothing is cached in memory. The file holds at most ``max_clients`` × 2 ``keep`` verdicts of about 100
    bytes: for each client the latest ``keep`` that made it a suspect and the latest ``keep`` that did not.
    Clients beyond ``max_clients`` are evicted as in :class:`Ledger`, but never one that was ever banned or
    unbanned.

    Args:
        path: the file, on a local disk; created if it does not exist.
        keep: the number of verdicts kept per client, of either kind.
        max_clients: the maximum number of clients kept.
        timeout: seconds to wait while another process writes.
        read_only: never create or change the file.
        keep_rounds: erase verdicts, strikes among them, this many rounds after theirs; None to keep them.

    Raises:
        LedgerError: the file cannot be read or written, is damaged, or is not a ledger of this version.
        ParameterError: a number is below 1.

    Example:
        >>> import tempfile
        >>> from fedguard import Guard, Round, SQLiteLedger
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     guard = Guard(ledger=SQLiteLedger(f"{folder}/ledger.db"))
        ...     outcome = guard.process(Round([[1.0], [float("nan")]], client_ids=["ann", "bob"]))
        ...     SQLiteLedger(f"{folder}/ledger.db", read_only=True)["bob"].strikes
        [0]
    """

    def __init__(
        self,
        path: str | Path,
        keep: int = 100,
        max_clients: int = 100_000,
        timeout: float = 30.0,
        read_only: bool = False,
        keep_rounds: int | None = None,
    ) -> None:
        super().__init__(keep, max_clients)
        if keep_rounds is not None and keep_rounds < 1:
            raise ParameterError(f"ledger: keep_rounds is {keep_rounds}; use 1 or more, or None")
        self.keep_rounds = keep_rounds
        self.path = Path(path)
        self._file = LedgerFile(self.path, timeout, read_only)
        self._open_here = threading.local()  # this thread's transaction, if it is in one

    def __reduce__(self) -> tuple[Any, ...]:
        bounds = (self.keep, self.max_clients, self._file.timeout)
        args = (self.path, *bounds, self._file.read_only, self.keep_rounds)
        return type(self), args  # a copy opens the same file

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything in the block atomically; an error rolls it back.

        Raises:
            LedgerError: the file cannot be written; nothing was written.
        """
        with self._db(write=True):
            yield

    @contextmanager
    def _db(self, write: bool = False) -> Iterator[sqlite3.Connection]:
        here = self._open_here
        if getattr(here, "db", None) is not None:
            yield here.db
            return
        with self._file.transaction(write) as db:
            here.db, before = db, _highest(db)
            try:
                yield db
                if write:
                    self._forget(db, before)
                    if self.keep_rounds is not None:
                        db.execute(ERASE_OLD, (self.next_round() - self.keep_rounds,))
            finally:
                here.db = None

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One snapshot: everything read in the block is of the same moment.

        Raises:
            LedgerError: the file cannot be read.
        """
        with self._db() as db:
            yield db

    def row(self, number: int) -> tuple[ClientId, Record]:
        """The client and the record of a row of the table ``clients``, which exists."""
        with self._db() as db:
            return next(self._read(db, "WHERE client = ?", number))

    def foreign(self, what: str) -> LedgerError:
        """The error for content that FedGuard never writes."""
        return self._file.wrong(what)

    def __getitem__(self, client: ClientId) -> Record:
        """The client's current record; an empty one for an unknown client."""
        return self.view([client])[client]

    def clients(self) -> list[ClientId]:
        """All clients with a record, in order of appearance."""
        with self._db() as db:
            return [
                client_id(self._file.wrong, row[0])
                for row in db.execute("SELECT id FROM clients ORDER BY client")
            ]

    def view(self, clients: Iterable[ClientId]) -> Ledger:
        """A snapshot of these clients' records, as a ledger in memory."""
        past = Ledger(self.keep, self.max_clients)
        with self._db() as db:
            found = [
                (client, record)
                for client in clients
                for _, record in self._read(db, "WHERE key = ?", _key(client))
            ]
        past._records = {str(client): (client, record) for client, record in found}
        return past

    def records(self) -> list[tuple[ClientId, Record]]:
        """A snapshot of all clients and records, in order of appearance."""
        with self._db() as db:
            return list(self._read(db, "ORDER BY client"))

    def _read(self, db: sqlite3.Connection, which: str, *values: object) -> Iterator[tuple[ClientId, Record]]:
        columns = "rounds, banned_since, banned_until, ban_reason, judged_since_ban"
        query = f"SELECT client, id, last_round, last_score, {columns} FROM clients {which}"  # noqa: S608
        for number, id_, *row in db.execute(query, values):
            strikes = [kept[0] for kept in db.execute(STRIKES, (number, self.keep))]
            yield client_id(self._file.wrong, id_), record_of(self._file.wrong, row, strikes[::-1])

    def judge(
        self, client: ClientId, round_index: int, score: float, suspect: bool, reason: str = ""
    ) -> None:
        """Store a verdict. It replaces one of the same round, unless that would undo a strike."""
        with self._db(write=True) as db:
            number = self._open_client(db, client)
            new = not db.execute(
                "SELECT 1 FROM verdicts WHERE client = ? AND round = ?", (number, round_index)
            ).fetchone()
            value = None if math.isnan(score) else score
            db.execute(JUDGE, (number, round_index, value, bool(suspect), _text(reason)))
            db.execute(COUNT, (new, new, value, round_index, number))
            if new:
                db.execute(PRUNE_VERDICTS, (number, bool(suspect), number, bool(suspect), self.keep - 1))

    def ban(self, client: ClientId, since: int, until: int | None, reason: str, by: str = GUARD) -> None:
        """Ban a client, unless it is already banned for at least as long."""
        with self._db(write=True) as db:
            if self[client].outlasts(since, until):
                return
            number = self._open_client(db, client)
            db.execute(
                "UPDATE clients SET banned_since = ?, banned_until = ?, ban_reason = ?, judged_since_ban = 0 "
                "WHERE client = ?",
                (since, until, _text(reason), number),
            )
            self._note(db, number, "ban", since, until, by, reason)

    def unban(self, client: ClientId, by: str, why: str) -> None:
        """Lift a ban (or end a parole), forgive all strikes so far, and record who decided it and why.

        Raises:
            ParameterError: the client is not banned, or ``by`` or ``why`` is empty.
        """
        with self._db(write=True) as db:
            check_unban(client, self[client], by, why)
            number = self._open_client(db, client)
            db.execute(
                "UPDATE clients SET banned_since = NULL, banned_until = NULL, ban_reason = '', "
                "judged_since_ban = 0 WHERE client = ?",
                (number,),
            )
            db.execute("UPDATE verdicts SET forgiven = 1 WHERE client = ? AND suspect", (number,))
            self._note(db, number, "unban", self.next_round(), None, by, why)

    def forget(self, client: ClientId, by: str, why: str) -> int:
        """Erase a client's verdicts and scores, and the guard's reasons for its bans; record who did and why.

        A ban stays in force, so does its beginning and end. What is erased is overwritten in the file.

        Returns:
            How many verdicts were erased.

        Raises:
            ParameterError: the client is unknown, or ``by`` or ``why`` is empty.
            LedgerError: the file cannot be written; nothing was erased.
        """
        check_forget(client, by, why)
        with self._db(write=True) as db:
            number, gone = erase(db, _key(client), self.unknown(client))
            self._note(db, number, "forget", self.next_round(), None, by, why)
        self._file.empty_log()
        return gone

    def unknown(self, client: ClientId) -> ParameterError:
        """The error for a client without a record."""
        return ParameterError(f"ledger {self.path} knows no client {client!r}; nothing was changed")

    def next_round(self) -> int:
        """The round after the last one in which any client was judged; 0 if there is none."""
        with self._db() as db:
            (last,) = db.execute("SELECT max(last_round) FROM clients").fetchone()
            must(self._file.wrong, WHOLE_OR_NONE, last)
        return 0 if last is None else int(last) + 1

    def judgements(self, client: ClientId) -> list[Judgement]:
        """The client's stored verdicts, latest last."""
        query = (
            "SELECT round, score, suspect, forgiven, reason FROM verdicts JOIN clients USING (client) "
            "WHERE key = ? ORDER BY round"
        )
        with self._db() as db:
            rows = db.execute(query, (_key(client),)).fetchall()
        return [judgement_of(self._file.wrong, row) for row in rows]

    def actions(self, client: ClientId | None = None) -> list[Action]:
        """The stored bans and unbans of one client (by default of all), latest last."""
        query = (
            "SELECT time, id, what, since, until, by, why FROM actions JOIN clients USING (client) "
            "WHERE ? IS NULL OR key = ? ORDER BY action"
        )
        key = None if client is None else _key(client)
        with self._db() as db:
            rows = db.execute(query, (key, key)).fetchall()
        return [action_of(self._file.wrong, row) for row in rows]

    def _open_client(self, db: sqlite3.Connection, client: ClientId) -> int:
        key = _key(client)
        db.execute("INSERT OR IGNORE INTO clients (key, id) VALUES (?, ?)", (key, json.dumps(client)))
        return int(db.execute("SELECT client FROM clients WHERE key = ?", (key,)).fetchone()[0])

    def _note(
        self, db: sqlite3.Connection, number: int, what: str, since: int, until: int | None, by: str, why: str
    ) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        db.execute(
            "INSERT INTO actions (time, client, what, since, until, by, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (now, number, what, since, until, _text(by), _text(why)),
        )
        db.execute(PRUNE_ACTIONS, (number, GUARD, number, GUARD, self.keep - 1))

    def _forget(self, db: sqlite3.Connection, before: int) -> None:
        """Evict clients beyond the bound if the transaction added any."""
        if _highest(db) == before:
            return
        (known,) = db.execute("SELECT count(*) FROM clients").fetchone()
        if known <= self.max_clients:
            return
        surplus = known - self.max_clients + self.max_clients // 10
        gone = db.execute(FORGET, (surplus,)).rowcount
        report_room(gone, known - gone, self.max_clients)

    def state_dict(self) -> State:
        """A marker only: the file itself is durable and independent of the guard's checkpoints."""
        return {"file": True}

    def load_state_dict(self, state: State) -> None:
        """Keep the content of the file; copy the records of a ledger in memory into an empty file.

        Raises:
            ParameterError: both the state and the file hold records.
        """
        if "records" not in state:
            return
        with self._db(write=True) as db:
            if db.execute("SELECT 1 FROM clients").fetchone():
                raise ParameterError(
                    f"the state holds a ledger, and {self.path} holds another; start with a new file"
                )
            for client, record in records_of(state):
                self._take_over(db, client, record)

    def _take_over(self, db: sqlite3.Connection, client: ClientId, record: Record) -> None:
        number, score = self._open_client(db, client), record.last_score
        strikes = [
            (number, index, None, True, "a strike from a ledger in memory") for index in record.strikes
        ]
        db.executemany(JUDGE, strikes[-self.keep :])
        db.execute(
            "UPDATE clients SET rounds = ?, judged_since_ban = ?, last_round = ?, last_score = ?, "
            "banned_since = ?, banned_until = ?, ban_reason = ? WHERE client = ?",
            (
                record.rounds,
                record.judged_since_ban,
                _last_round(record),
                None if score is None or math.isnan(score) else score,
                record.banned_since,
                record.banned_until,
                _text(record.ban_reason),
                number,
            ),
        )


def _last_round(record: Record) -> int | None:
    """The last round in which a client was judged; an estimate if the record is of a version without it."""
    if record.last_score is None:
        return None
    return max(record.strikes, default=0) if record.last_round is None else record.last_round


def _key(client: ClientId) -> str:
    """The id as a JSON string in ASCII: clients choose their ids, so any string must be storable."""
    return json.dumps(str(client))


def _text(text: str) -> str:
    return text[:REASON].encode("utf-8", "backslashreplace").decode()


def _highest(db: sqlite3.Connection) -> int:
    (number,) = db.execute("SELECT ifnull(max(client), 0) FROM clients").fetchone()  # the rowid: an integer
    return int(number)
