"""How large an evaluation is, and how long it will take."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ...core.threads import single_thread
from ...simulation.federation import Federation
from ...simulation.settings import Cell
from ...simulation.shadow import Shadow
from ..suites.suite import Suite
from .task import Task, tasks_of

#: Bytes of the results file per client and round, measured (all_attacks: 6.6 MB for 73,440 rows).
ROW_BYTES = 90


def size(suite: Suite) -> str:
    """The runs, rounds, trainings and megabytes of a suite, as text. Nothing is trained or timed."""
    cells = suite.cells()
    tasks = _tasks(cells)
    live = [task.cells[0] for task in tasks if task.cells[0].recording is None]  # one federation each
    trainings = sum(cell.rounds * cell.participants for cell in live)
    rows = sum(cell.rounds * cell.clients for cell in cells)
    points = f"{len(suite.points()):,} point{'s' if len(suite.points()) > 1 else ''}"
    return (
        f"{len(cells):,} runs ({len(tasks):,} tasks, {points} of the grid), "
        f"{sum(cell.rounds for cell in cells):,} rounds\n"
        f"{trainings:,} trainings of a client and {rows * ROW_BYTES / 1e6:.1f} MB of results"
    )


def duration(suite: Suite, workers: int) -> str:
    """The minutes that a suite takes, as text.

    They come from running the first two rounds of every attack × defense at the first point of the grid in
    this process. A run costs what its setup and its first round take, and its second for each further one.
    This is processor time (on a GPU, time): on a machine that is busy with other work it takes longer. What
    only the first run of a process pays (imports, reading the data) is left out. Rounds after the second may
    be faster or slower.
    """
    cells = suite.cells()
    timed: dict[tuple[str, str], _Seconds] = {}
    for cell in cells:
        kind = (cell.attack_label, cell.defense_label)
        if not timed:
            _first_rounds(cell)  # imports, reads the data
        if kind not in timed:
            timed[kind] = _first_rounds(cell)
    seconds = sum(
        timed[cell.attack_label, cell.defense_label].of(cell.rounds)
        for task in _tasks(cells)
        for cell in task.cells
    )
    return f"about {seconds / 60 / workers:.1f} minutes on {workers} process{'es' if workers > 1 else ''}"


def _tasks(cells: list[Cell]) -> list[Task]:
    return tasks_of(list(enumerate(cells)), Path(tempfile.gettempdir()), 0)


class _Seconds(NamedTuple):
    """Processor time of a run's setup with its first round, and of its second round."""

    first: float
    second: float

    def of(self, rounds: int) -> float:
        return self.first + (rounds - 1) * self.second


def _first_rounds(cell: Cell) -> _Seconds:
    clock = time.process_time if cell.device == "cpu" else time.perf_counter
    start = clock()
    with single_thread():  # as in the worker processes; with tiny work, many threads wait for each other
        if cell.recording is not None:
            Shadow([cell.model_copy(update={"rounds": 1})]).run()
            each = clock() - start
            return _Seconds(each, each)
        federation = Federation(cell.model_copy(update={"rounds": min(2, cell.rounds)}))
        federation.step(0)
        middle = clock()
        if cell.rounds > 1:
            federation.step(1)
    return _Seconds(middle - start, clock() - middle)
