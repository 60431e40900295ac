"""Run a suite, or the rest of it, and store every run as it finishes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from filelock import FileLock, Timeout

from ...core.devices import resolve_device
from ...core.errors import ResultsError
from ...core.files import not_written
from ...simulation.settings import Cell
from ..results.data import sign_data
from ..results.store import CellResult, Store
from ..suites.suite import Suite
from .checkpoint import Checkpoint
from .executors import Executor, Pool
from .task import tasks_of

#: Called after every round with the (first) cell and the record's round index.
OnRound = Callable[[Cell, int], None]
#: Called after every cell.
OnCell = Callable[[CellResult], None]
#: Called before the first round with the number of runs and of rounds that are left.
OnStart = Callable[[int, int], None]


def run_suite(
    suite: Suite,
    folder: Path,
    workers: int,
    on_round: OnRound = lambda _cell, _round: None,
    on_cell: OnCell = lambda _result: None,
    on_start: OnStart = lambda _runs, _rounds: None,
    retry_failed: bool = False,
    checkpoint_seconds: float = 10.0,
    executor: Executor | None = None,
    record: Path | None = None,
    force: bool = False,
) -> Store:
    """Run a suite into a results folder, or the rest of it after an interruption.

    A failed cell is stored with its error, and the others continue. Results are bit-identical for any
    executor, number of workers and number of interruptions: every piece of work runs on one thread with its
    own generators, and unfinished cells resume from their last checkpoint.

    Args:
        suite: a checked suite (see :func:`fedguard.evaluation.suites.check.check_suite`).
        folder: where results go; holds no results yet, or those of the same suite, code and data.
        workers: processes; 1 runs everything in this one.
        on_round: called in this process after every round that is run.
        on_cell: called in this process after every cell that is run.
        on_start: called once, before the first round.
        retry_failed: run failed cells again.
        checkpoint_seconds: the most work that an interruption may cost each running cell.
        executor: where to run; ``workers`` processes here if absent.
        record: a folder; every federation that runs is recorded to its own folder in it.
        force: resume although FedGuard's code has changed since.

    Raises:
        DataError: a data set cannot be read.
        ResultsError: the folder holds other results, is in use by another process, or cannot be written.
        ParameterError: this machine is to run a cell, but does not have its device.
    """
    if executor is None or isinstance(executor, Pool):
        for name in sorted({cell.device for cell in suite.cells()}):
            resolve_device(name)
    store = Store.create(folder, suite, force)
    try:
        lock = FileLock(folder / "lock", timeout=0).acquire()
    except Timeout:
        raise ResultsError(f"another process is writing to {folder}; wait for it, or use --out") from None
    except OSError as error:
        raise ResultsError(not_written(folder, error, "choose another folder (--out)")) from None
    with lock:
        sign_data(store, suite)
        left = pending(store, suite, retry_failed)
        tasks = tasks_of(
            left, (folder / "checkpoints").absolute(), checkpoint_seconds, record and record.absolute()
        )
        on_start(len(left), sum(task.cells[0].rounds for task in tasks))
        where = executor or Pool(workers, suite.parallel)
        running = where.run(tasks, lambda p, index: on_round(tasks[p].cells[0], index))
        with closing(running):  # after an interruption, end the workers now, not at garbage collection
            for position, results in running:
                store.add(dict(zip(tasks[position].runs, results, strict=True)))
                Checkpoint(tasks[position].checkpoint).clear()
                for result in results:
                    on_cell(result)
    return store


def pending(store: Store, suite: Suite, retry_failed: bool = False) -> list[tuple[int, Cell]]:
    """The cells that are not in the store yet, with their numbers; removes failed ones if asked to."""
    finished = store.finished()
    if retry_failed:
        store.forget(run for run, status in finished.items() if status == "failed")
        finished = store.finished()
    return [(run, cell) for run, cell in enumerate(suite.cells()) if run not in finished]
