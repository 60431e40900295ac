"""The size of a suite, without running any of it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ..suites.suite import Suite
from .task import tasks_of

#: Bytes of the store per client and round. Measured: 50 to 115, more for longer reasons.
ROW_BYTES = 90


def estimate(suite: Suite) -> str:
    """The runs, rounds, trainings and megabytes of a suite, as text. Nothing is trained or timed."""
    cells = suite.cells()
    tasks = tasks_of(list(enumerate(cells)), Path(tempfile.gettempdir()), 0)
    live = [task.cells[0] for task in tasks if task.cells[0].recording is None]  # one federation each
    trainings = sum(cell.rounds * cell.participants for cell in live)
    rows = sum(cell.rounds * cell.clients for cell in cells)
    points = f"{len(suite.points()):,} point{'s' if len(suite.points()) > 1 else ''}"
    return (
        f"{len(cells):,} runs ({len(tasks):,} tasks, {points} of the grid), "
        f"{sum(cell.rounds for cell in cells):,} rounds\n"
        f"{trainings:,} trainings of a client and {rows * ROW_BYTES / 1e6:.1f} MB of results"
    )
