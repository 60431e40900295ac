"""A ledger and an event stream as they change, for many browsers at once."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import DataError
from ..ledger.operate import ban_by_hand, writable
from ..ledger.sqlite import SQLiteLedger
from ..observers.tail import Tail
from .contents import round_values


class State(NamedTuple):
    """What tells whether there is news: of the files of the ledger, and how many rounds were read."""

    ledger: tuple[tuple[int, int, int], ...]
    rounds: int


class Live:
    """What the server reads and writes.

    Args:
        ledger: the ledger's file.
        events: what an EventLog writes; None without one.
        read_only: refuse bans and unbans.

    Raises:
        LedgerError: the ledger cannot be read.
    """

    def __init__(self, ledger: Path, events: Path | None = None, read_only: bool = False) -> None:
        self.path = ledger
        self.read_only = read_only
        self.ledger = SQLiteLedger(ledger, read_only=True)
        self._tail = None if events is None else Tail(events, round_values)
        self._lock = threading.Lock()

    def state(self) -> State:
        """Look at the files, and read new rounds."""
        seen = 0
        if self._tail is not None:
            with self._lock:
                with suppress(DataError):  # it cannot be read now: the page shows the rounds before
                    self._tail.read()
                seen = self._tail.seen
        return State(tuple(_facts(self.path.with_name(self.path.name + end)) for end in ("", "-wal")), seen)

    def rounds(self) -> list[dict[str, Any]]:
        """The latest rounds of the event stream."""
        if self._tail is None:
            return []
        with self._lock:
            return list(self._tail.rounds)

    def ban(self, client: str | int, by: str, why: str, rounds: int | None) -> str:
        """Ban a client from the next round on; returns its standing.

        Raises:
            ParameterError: see :func:`fedguard.ledger.operate.ban_by_hand`.
            LedgerError: the ledger cannot be written.
        """
        return ban_by_hand(writable(self.path), client, by, why, rounds)

    def unban(self, client: str | int, by: str, why: str) -> None:
        """Lift a ban and forgive the strikes.

        Raises:
            ParameterError: the client is not banned, or ``by`` or ``why`` is empty.
            LedgerError: the ledger cannot be written.
        """
        writable(self.path).unban(client, by.strip(), why.strip())


def _facts(path: Path) -> tuple[int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0, 0
    return stat.st_ino, stat.st_size, stat.st_mtime_ns
