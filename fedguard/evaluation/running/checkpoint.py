"""Checkpoints of a run: written atomically, checked when read, with the previous one kept."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...core.errors import ResultsError
from ...core.state import State, load, save
from ...simulation.records import ClientRow, RoundRecord


class Checkpoint:
    """The two latest states of one run, in two files.

    Args:
        path: the file; the previous state is kept beside it as ``.old``.
        seconds: the least time between two writes (0: always write), so that short runs write nothing.
    """

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        self.path = path
        self.seconds = seconds
        self._last = time.monotonic()

    @property
    def _old(self) -> Path:
        return self.path.with_suffix(".old")

    def offer(self, state: Any) -> None:
        """Write ``state()`` if enough time has passed.

        Args:
            state: returns the state; called only if it will be written.
        """
        if time.monotonic() - self._last >= self.seconds:
            self.save(state())

    def save(self, state: State) -> None:
        """Write a state; after a crash at any moment, this state or the previous one is intact.

        Raises:
            ResultsError: it cannot be written.
        """
        save(self.path, state)
        self._last = time.monotonic()

    def load(self) -> State | None:
        """The latest intact state; None if there is none."""
        try:
            return load(self.path)
        except ResultsError:  # truncated, or written by another version: start again
            return None

    def clear(self) -> None:
        """Remove both files: the run is over."""
        for path in (self.path, self._old, self.path.with_suffix(".new")):
            path.unlink(missing_ok=True)


def records_state(records: list[RoundRecord]) -> list[dict[str, Any]]:
    """Round records as JSON values."""
    return [{**asdict(r), "clients": [list(row) for row in r.clients]} for r in records]


def load_records(state: list[dict[str, Any]]) -> list[RoundRecord]:
    """The round records from :func:`records_state`."""
    return [RoundRecord(**{**r, "clients": [ClientRow(*row) for row in r["clients"]]}) for r in state]
