"""What executors have in common: their contract, and tasks as values that any of them can send."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Protocol

from ....core.threads import single_thread
from ....simulation.packing import receive_given
from ....simulation.settings import Cell
from ...results.store import CellResult
from ..task import Task, run_task

#: Called in this process after every round, with the position of the task.
OnRound = Callable[[int, int], None]
#: A finished task: its position and its results.
Done = tuple[int, list[CellResult]]


class Executor(Protocol):
    """Runs tasks, in any order, and yields the results of each as soon as it finishes."""

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once."""
        ...


#: A task as plain values, which any executor can send.
Packed = tuple[tuple[int, ...], tuple[str, ...], str, float, str | None]


def packed(task: Task) -> Packed:
    """The task as plain values."""
    cells = tuple(cell.model_dump_json() for cell in task.cells)
    record = None if task.record is None else str(task.record)
    return task.runs, cells, str(task.checkpoint), task.seconds, record


def unpacked(values: Packed) -> Task:
    """The task that was given to :func:`packed`."""
    runs, cells, checkpoint, seconds, record = values
    return Task(
        runs,
        tuple(Cell.model_validate_json(cell) for cell in cells),
        Path(checkpoint),
        seconds,
        None if record is None else Path(record),
    )


def far_job(values: Packed, table: bytes = b"") -> list[CellResult]:
    """Run a task on another machine, or in a process that is not ours; ``table`` is of :func:`pack_given`."""
    receive_given(table)
    with single_thread():
        return run_task(unpacked(values))


def report(task: Task, position: int, on_round: OnRound) -> None:
    """Report all rounds of a task that has finished elsewhere."""
    for index in range(task.cells[0].rounds):
        on_round(position, index)
