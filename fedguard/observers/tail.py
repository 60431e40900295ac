"""Following an event stream as it is written."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..core.errors import DataError

#: How many rounds are kept, for the chart of the drift.
HISTORY = 40
_NEEDED = {"round", "time", "clients", "suspects", "banned", "new_bans", "note", "seconds", "verdicts"}
_BAD = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


class Tail:
    """Follow the rounds of an event stream. The file may be rotated, and need not exist yet.

    Args:
        path: the file that an :class:`fedguard.EventLog` writes.
        keep: what to keep of a round; all of it by default.

    Attributes:
        rounds: the latest :data:`HISTORY` rounds.
        seen: how many rounds were read in all.
    """

    def __init__(
        self, path: Path, keep: Callable[[dict[str, Any]], dict[str, Any]] = lambda event: event
    ) -> None:
        self.path = path
        self.seen = 0
        self._keep = keep
        self.rounds: deque[dict[str, Any]] = deque(maxlen=HISTORY)
        self._offset = 0
        self._file: tuple[int, int] | None = None

    def read(self) -> bool:
        """Read new lines, and return whether they held a round.

        Raises:
            DataError: the file cannot be read.
        """
        try:
            stat = self.path.stat()
            if (stat.st_dev, stat.st_ino) != self._file or stat.st_size < self._offset:
                self._file, self._offset = (stat.st_dev, stat.st_ino), 0
            found = False
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # still being written
                    self._offset += len(line)
                    found |= self._take(line)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise DataError(f"cannot read {self.path}: {error.strerror}") from None
        return found

    def _take(self, line: bytes) -> bool:
        try:
            event = json.loads(line)
            whole = bool(event["event"] == "round" and event.keys() >= _NEEDED and "norm" in event["drift"])
            kept = self._keep(event) if whole else {}
        except _BAD:  # a crash cut the line short, or FedGuard did not write it
            return False
        if whole:
            self.rounds.append(kept)
            self.seen += 1
        return whole
