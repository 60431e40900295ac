"""Checkpoints of a run: written atomically, checked when read, the one before kept."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ...core.errors import ResultsError
from ...core.state import State, load, save
from ...simulation.records import ClientRow, RoundRecord


class Checkpoint:
    """The latest states of one run, in two files: the last one written, and the one before.

    Args:
        path: the file; the one before is kept beside it as ``.old``.
        seconds: write at most once in so many seconds (0: always), so that short runs pay nothing.
    """

    def __init__(self, path: Path, seconds: float = 10.0) -> None:
        self.path = path
        self.seconds = seconds
        self._last = time.monotonic()

    @property
    def _old(self) -> Path:
        return self.path.with_suffix(".old")

    def offer(self, state: Any) -> None:
        """Write ``state()`` if it is time to.

        Args:
            state: gives the state; only called when it will be written.
        """
        if time.monotonic() - self._last >= self.seconds:
            self.save(state())

    def save(self, state: State) -> None:
        """Write a state; a crash at any moment leaves this one or the one before.

        Raises:
            ResultsError: it cannot be written.
        """
        save(self.path, state)
        self._last = time.monotonic()

    def load(self) -> State | None:
        """The latest state that is whole; None if there is none."""
        try:
            return load(self.path)
        except ResultsError:  # cut short, or written by another version: begin again
            return None

    def clear(self) -> None:
        """Remove both files: the run is over."""
        for path in (self.path, self._old, self.path.with_suffix(".new")):
            path.unlink(missing_ok=True)


def records_state(records: list[RoundRecord]) -> list[dict[str, Any]]:
    """Round records as JSON values."""
    return [{**asdict(r), "clients": [list(row) for row in r.clients]} for r in records]


def load_records(state: list[dict[str, Any]]) -> list[RoundRecord]:
    """What :func:`records_state` was made of."""
    return [RoundRecord(**{**r, "clients": [ClientRow(*row) for row in r["clients"]]}) for r in state]
