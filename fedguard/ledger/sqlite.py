"""A ledger that outlives the server: one SQLite file, whole rounds or nothing, several guards at once."""

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

from ..core.errors import ParameterError
from .file import COUNT, FORGET, JUDGE, PRUNE_ACTIONS, PRUNE_VERDICTS, STRIKES, LedgerFile
from .memory import GUARD, REASON, Ledger, Record, check_unban, records_of, report_room
from .rows import WHOLE_OR_NONE, Action, Judgement, action_of, client_id, judgement_of, must, record_of

if TYPE_CHECKING:
    from ..core.ids import ClientId
    from ..core.state import State


class SQLiteLedger(Ledger):
    """The ledger in a SQLite file (WAL): same answers as :class:`Ledger`, and it survives ``kill -9``.

    A round is written in one transaction and flushed to the disk before the guard's ``process`` returns.
    Guards (threads, processes) that share a file share the count of rounds and the clients' ids: strikes
    add up, and everybody respects everybody's bans from the next round on. A round that is judged again,
    after a restart from an older checkpoint, does not count twice; a strike is not undone by it.

    The process keeps nothing in memory. The file is bounded by ``max_clients`` × 2 ``keep`` verdicts
    (about 100 bytes each): per client the latest ``keep`` that made it a suspect and the latest ``keep``
    that did not. Clients beyond ``max_clients`` are forgotten as in :class:`Ledger`; nobody who was ever
    banned or unbanned is.

    Args:
        path: the file, on a local disk; it is made if it is not there.
        keep: verdicts kept per client, of either kind.
        max_clients: clients remembered.
        timeout: seconds to wait while another process writes.
        read_only: never create or change the file.

    Raises:
        LedgerError: the file cannot be read or written, is damaged, or is no ledger of this version.
        ParameterError: a number below 1.
    """

    def __init__(
        self,
        path: str | Path,
        keep: int = 100,
        max_clients: int = 100_000,
        timeout: float = 30.0,
        read_only: bool = False,
    ) -> None:
        super().__init__(keep, max_clients)
        self.path = Path(path)
        self._file = LedgerFile(self.path, timeout, read_only)
        self._open_here = threading.local()  # this thread's transaction, if it is in one

    def __reduce__(self) -> tuple[Any, ...]:
        args = (self.path, self.keep, self.max_clients, self._file.timeout, self._file.read_only)
        return type(self), args  # a copy is another door to the same file

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside counts as a whole; not at all if an error comes out of it.

        Raises:
            LedgerError: it cannot be written; nothing was.
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
            finally:
                here.db = None

    def __getitem__(self, client: ClientId) -> Record:
        """The client's record as it is now; an empty one for a client never seen."""
        return self.view([client])[client]

    def clients(self) -> list[ClientId]:
        """Everyone with a record, in order of appearance."""
        with self._db() as db:
            return [
                client_id(self._file.wrong, row[0])
                for row in db.execute("SELECT id FROM clients ORDER BY client")
            ]

    def view(self, clients: Iterable[ClientId]) -> Ledger:
        """These clients' records as they are at this moment, as a ledger in memory."""
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
        """Everyone's record, at one moment, in order of appearance."""
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
        """Note a verdict; one of the same round takes its place, unless it would undo a strike."""
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
        """Put a ban into force, unless one is in force already that lasts as long."""
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
        """Lift a ban (or end a parole), forgive the strikes so far, and record who decided it and why.

        Raises:
            ParameterError: the client is not banned, or it is not said who decides and why.
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

    def next_round(self) -> int:
        """The round after the last one that any client was judged in; 0 if there is none."""
        with self._db() as db:
            (last,) = db.execute("SELECT max(last_round) FROM clients").fetchone()
            must(self._file.wrong, WHOLE_OR_NONE, last)
        return 0 if last is None else int(last) + 1

    def judgements(self, client: ClientId) -> list[Judgement]:
        """The client's verdicts that are kept, the latest last."""
        query = (
            "SELECT round, score, suspect, forgiven, reason FROM verdicts JOIN clients USING (client) "
            "WHERE key = ? ORDER BY round"
        )
        with self._db() as db:
            rows = db.execute(query, (_key(client),)).fetchall()
        return [judgement_of(self._file.wrong, row) for row in rows]

    def actions(self, client: ClientId | None = None) -> list[Action]:
        """Every ban and unban that is kept, of one client or of all, the latest last."""
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
        """Keep to the bound, if new clients have come."""
        if _highest(db) == before:
            return
        (known,) = db.execute("SELECT count(*) FROM clients").fetchone()
        if known <= self.max_clients:
            return
        surplus = known - self.max_clients + self.max_clients // 10
        gone = db.execute(FORGET, (surplus,)).rowcount
        report_room(gone, known - gone, self.max_clients)

    def state_dict(self) -> State:
        """Only that there is a file: it remembers by itself, and outlives the guard's checkpoints."""
        return {"file": True}

    def load_state_dict(self, state: State) -> None:
        """Keep what is in the file; the records of a ledger in memory are taken over into an empty one.

        Raises:
            ParameterError: records in memory and records in the file: which are right?
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
    """The id as a JSON string in ASCII. Clients choose their ids, so any string must be storable."""
    return json.dumps(str(client))


def _text(text: str) -> str:
    return text[:REASON].encode("utf-8", "backslashreplace").decode()


def _highest(db: sqlite3.Connection) -> int:
    (number,) = db.execute("SELECT ifnull(max(client), 0) FROM clients").fetchone()  # the rowid: an integer
    return int(number)
