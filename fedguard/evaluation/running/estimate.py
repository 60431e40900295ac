"""How large an evaluation is, and how long it will take."""

from __future__ import annotations

import heapq
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from ...core.cores import cores
from ...core.threads import single_thread
from ...simulation.federation import Federation
from ...simulation.settings import Cell
from ...simulation.shadow import Shadow
from ..suites.suite import Suite
from .task import Task, tasks_of

#: Bytes of the results file per client and round, measured (all_attacks: 6.6 MB for 73,440 rows).
ROW_BYTES = 90
#: From so many times as long on, the text tells the load of the machine.
NOTABLE = 1.2


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
    """How long a suite takes, as text.

    It comes from running the first two rounds of every attack × defense at the first point of the grid in
    this process. A run costs what its setup and its first round take, and its second for each further one.
    Each process also starts once: its imports, and reading the data. Tasks go to the processes in their
    order. This is processor time (on a GPU, time). If this process did not get a whole processor, the text
    also says how long it takes at that load. Rounds after the second may be faster or slower.
    """
    wall, busy = time.perf_counter(), time.process_time()
    timed: dict[tuple[str, str], _Seconds] = {}
    cells = suite.cells()
    warm = _first_rounds(cells[0])  # imports, reads the data
    for cell in cells:
        kind = (cell.attack_label, cell.defense_label)
        if kind not in timed:
            timed[kind] = _first_rounds(cell)
    start = busy + max(0.0, warm.first - timed[cells[0].attack_label, cells[0].defense_label].first)
    costs = [
        sum(timed[cell.attack_label, cell.defense_label].of(cell.rounds) for cell in task.cells)
        for task in _tasks(cells)
    ]
    seconds = _last_end(costs, workers, start)
    text = f"about {_amount(seconds)} on {workers} process{'es' if workers > 1 else ''}"
    got = (time.process_time() - busy) / max(time.perf_counter() - wall, 1e-9)
    slower = _slower(got, workers, cores())
    busier = slower > NOTABLE and cells[0].device == "cpu"
    return f"{text}; {_amount(slower * seconds)} while the machine is as busy as now" if busier else text


def _last_end(costs: list[float], workers: int, start: float) -> float:
    """When the last task ends if each process takes the next task once it is free."""
    free = [start] * max(1, min(workers, len(costs)))
    for cost in costs:
        heapq.heapreplace(free, free[0] + cost)
    return max(free)


def _slower(got: float, workers: int, processors: int) -> float:
    """How many times as long it takes if one process got this share of a processor.

    With fair shares it is processors / (others + 1) at most, which tells the number of others; each of the
    workers then gets processors / (others + workers).
    """
    others = max(0.0, processors / max(got, 1e-3) - 1) if got < 1 / NOTABLE else 0.0
    return max(1.0, (others + workers) / processors) if others else 1.0


def _amount(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1.0, seconds):.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


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
