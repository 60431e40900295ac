"""How large an evaluation is, and how long it will take."""

from __future__ import annotations

import heapq
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from ...core.cores import cores
from ...simulation.settings import Cell
from ..results.store import Store
from ..suites.suite import Suite
from .costs import Costs, Kind
from .sampling import sample
from .stored_times import stored_times
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
    """How long a suite takes, as text, from two rounds of a few of its runs in this process.

    Every attack, every defense and every point of the grid is in one of them, see
    :func:`.sampling.picked` and :class:`.costs.Costs`. Tasks go to the processes in their order, and each
    process starts once: its imports, and reading the data. This is processor time (on a GPU, time). If this
    process did not get a whole processor, the text also says how long it takes at that load.
    """
    cells = suite.cells()
    kinds = {cell.key: Kind.of(cell) for cell in cells}
    wall, busy = time.perf_counter(), time.process_time()

    def end(costs: Costs, once: float = 0.0) -> float:
        return _end(suite, cells, costs, workers, once, kinds)

    found = sample(cells, end)
    got = (time.process_time() - busy) / max(time.perf_counter() - wall, 1e-9)
    seconds = end(Costs(found.timed), found.once)
    text = f"about {_amount(seconds)} on {_processes(workers)}"
    slower = _slower(got, workers, cores())
    if slower > NOTABLE and cells[0].device == "cpu":
        text += f"; {_amount(slower * seconds)} while the machine is as busy as now"
    return f"{text}\n{_basis(len(found.timed), len(set(kinds.values())), found.left, found.seconds)}"


def duration_as_stored(suite: Suite, workers: int, folder: Path) -> str:
    """How long the rest of a suite takes, as text, if it is like the runs that are stored in its folder.

    Stored are seconds on a clock, so that the load of the machine then is in them. Empty if there is no
    stored run; nothing is run.
    """
    timed = stored_times(folder)
    if not timed:
        return ""
    store = Store(folder)
    done = {} if store.other_suite(suite) or store.other_code() else store.finished()
    cells = suite.cells()
    if len(done) == len(cells):  # they will run again, in a new folder
        done = {}
    kinds = {cell.key: Kind.of(cell) for cell in cells}
    known = [{one.kind[place] for one in timed} for place in range(3)]
    rest = [cell for run, cell in enumerate(cells) if run not in done]
    told = [c for c in rest if all(part in some for part, some in zip(kinds[c.key], known, strict=True))]
    if not told:
        return ""
    text = f"{len(done):,} of them are finished; " if done else ""
    missing = len(rest) - len(told)
    which = f"{len(told):,} of the other {len(rest):,}" if missing and done else f"{len(told):,} of them"
    which = which if missing else ("the others" if done else "they")
    seconds = _end(suite, told, Costs(timed), workers, 0.0, kinds)
    text += f"{which} take about {_amount(seconds)} on {_processes(workers)}, as the runs in {folder} did"
    return f"{text} (nothing is known of the other {missing:,})" if missing else text


def _end(
    suite: Suite, cells: Sequence[Cell], costs: Costs, workers: int, once: float, kinds: dict[str, Kind]
) -> float:
    """When the last task ends."""
    each = []
    for task in _tasks(cells):
        found = [costs.of(cell, kinds[cell.key]) for cell in task.cells]
        # Runs that watch one federation share its work; processes that share one run, its clients.
        each.append((found[0][0], sum(judging for _, judging in found)))
    if suite.parallel == "clients":
        return once + sum(work / workers + judging for work, judging in each)
    return _last_end([sum(pair) for pair in each], workers, once)


def _basis(timed: int, kinds: int, left: int, seconds: float) -> str:
    """What an estimate comes from, and what it leaves out."""
    which = "each kind of run" if timed == kinds else f"{timed} of the {kinds} kinds of run"
    text = f"from two rounds of {which}, timed in {_amount(seconds)}"
    if left:
        text += f"; {left} more were left out, and count as the mean"
    return f"{text}; bans and later rounds may change it"


def _processes(workers: int) -> str:
    return f"{workers} process{'es' if workers > 1 else ''}"


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
        number = max(1, round(seconds))
        return f"{number} second{'s' if number > 1 else ''}"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def _tasks(cells: Sequence[Cell]) -> list[Task]:
    return tasks_of(list(enumerate(cells)), Path(tempfile.gettempdir()), 0)
