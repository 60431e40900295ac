"""Estimates of what a suite will cost."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ...core.threads import single_thread
from ...simulation.federation import Federation
from ...simulation.settings import Cell
from ...simulation.shadow import Shadow
from ..suites.suite import Suite
from .task import tasks_of

#: Bytes of the store per client and round. Measured: 50 to 115, more for longer reasons.
ROW_BYTES = 90


def estimate(suite: Suite, workers: int) -> str:
    """The cells, minutes and megabytes of a suite, as text.

    The minutes come from timing the first round of every attack × defense at the first point of the grid
    (once, in this process). Later rounds may be faster or slower; FedREDefense's first is its slowest.
    """
    cells = suite.cells()
    tasks = tasks_of(list(enumerate(cells)), Path(tempfile.gettempdir()), 0)
    timed: dict[tuple[str, str], float] = {}
    for cell in cells:
        kind = (cell.attack_label, cell.defense_label)
        if kind not in timed:
            timed[kind] = _first_round(cell)
    seconds = sum(
        cell.rounds * timed[cell.attack_label, cell.defense_label] for task in tasks for cell in task.cells
    )
    rows = sum(cell.rounds * cell.clients for cell in cells)
    points = len(suite.points())
    return (
        f"{len(cells)} runs ({len(tasks)} tasks, {points} point{'s' if points > 1 else ''} of the grid), "
        f"{sum(cell.rounds for cell in cells)} rounds\n"
        f"about {seconds / 60 / workers:.1f} minutes on {workers} process{'es' if workers > 1 else ''} "
        f"and {rows * ROW_BYTES / 1e6:.0f} MB of results"
    )


def _first_round(cell: Cell) -> float:
    first = cell.model_copy(update={"rounds": 1})
    start = time.perf_counter()
    with single_thread():  # as in the worker processes; with tiny work, many threads wait for each other
        if cell.recording is not None:
            Shadow([first]).run()
        else:
            Federation(first).step(0)
    return time.perf_counter() - start
