"""Worker processes on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from multiprocessing import get_context
from threading import Thread
from typing import Any, NamedTuple

from ....core.named_code import GIVEN_PREFIX
from ....core.threads import blocks_on
from ....simulation.datasets import Dataset
from ....simulation.packing import pack_given, receive_given
from ....simulation.pool import Workers
from ....simulation.setup import dataset_of
from ....simulation.specs import LIVE
from ....simulation.threaded import Threads
from ...results.store import CellResult
from ..task import Task, run_task
from .base import Done, OnRound, Packed, packed, unpacked


class Pool:
    """Worker processes on this machine.

    Args:
        workers: how many; 1 runs everything in this process. If there are fewer tasks, there is one process
            for each, which uses its share of the workers as threads (see :class:`.Threads`).
        parallel: "cells" gives every worker a task of its own; "clients" runs one task at a time and spreads
            its clients over the workers.
    """

    def __init__(self, workers: int, parallel: str = "cells") -> None:
        self.workers = workers
        self.parallel = parallel

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once."""
        clients = self.parallel == "clients"
        workers = self.workers if clients else min(self.workers, len(tasks))
        if clients or workers <= 1:
            yield from self._one_by_one(workers, tasks, on_round)
        else:
            yield from self._side_by_side(workers, tasks, on_round)

    def _one_by_one(
        self, workers: int, tasks: Sequence[Task], on_round: OnRound
    ) -> Generator[Done, None, None]:
        table = pack_given(_names_of_data(tasks)) if workers > 1 else b""
        with Workers(workers, _data(tasks), receive_given, (table,)) as pool:
            spread = pool.map if workers > 1 else Threads(self.workers)
            for position, task in enumerate(tasks):
                with blocks_on(max(1, self.workers)):
                    done = pool.here(run_task, task, spread, lambda t, p=position: on_round(p, t))
                yield position, done

    def _side_by_side(
        self, workers: int, tasks: Sequence[Task], on_round: OnRound
    ) -> Generator[Done, None, None]:
        queue = get_context("spawn").SimpleQueue()
        listener = Thread(target=_listen, args=(queue, on_round), daemon=True)
        listener.start()
        start = (queue, pack_given(_names_of_data(tasks)))
        with Workers(workers, _data(tasks), _connect, start) as pool:
            threads = self.workers // workers
            jobs = [(p, packed(task), threads) for p, task in enumerate(tasks)]
            yield from pool.unordered(_pool_job, jobs)
        queue.put(None)
        listener.join(timeout=5)


def _data(tasks: Sequence[Task]) -> dict[str, Dataset]:
    """The data sets of the tasks by their specs' keys, read and kept in memory once for all processes."""
    specs = {cell.data.key: cell.data for task in tasks for cell in task.cells if cell.data.name != LIVE}
    found = {key: dataset_of(spec) for key, spec in specs.items()}
    for dataset in found.values():
        _ = dataset.training_set, dataset.test_set  # normalized once, for all processes
    return found


def _names_of_data(tasks: Sequence[Task]) -> set[str]:
    """The data sets among the given objects; :func:`_data` hands them over."""
    names = {cell.data.name for task in tasks for cell in task.cells}
    return {name.partition(":")[2] for name in names if name.startswith(f"{GIVEN_PREFIX}:")}


_QUEUE: Any = None


class _Remark(NamedTuple):
    """What a worker logged."""

    process: int
    logger: str
    level: int
    text: str


class _ToParent(logging.Handler):
    """Sends what a worker logs to the process that started it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record, with its traceback."""
        _QUEUE.put(_Remark(os.getpid(), record.name, record.levelno, self.format(record)))


def _connect(queue: Any, table: bytes) -> None:
    global _QUEUE  # one per worker process, set once when it starts
    _QUEUE = queue
    ours = logging.getLogger("fedguard")
    ours.handlers, ours.propagate = [_ToParent()], False
    receive_given(table)


def _pool_job(job: tuple[int, Packed, int]) -> list[CellResult]:
    position, packed, threads = job
    with blocks_on(threads):
        return run_task(unpacked(packed), Threads(threads), lambda index: _QUEUE.put((position, index)))


def _listen(queue: Any, on_round: OnRound) -> None:
    """Pass on rounds and remarks, but no remark that another worker has made: each logs it once."""
    said: dict[tuple[str, str], int] = {}
    while (message := queue.get()) is not None:
        if not isinstance(message, _Remark):
            on_round(*message)
        elif said.setdefault((message.logger, message.text), message.process) == message.process:
            logging.getLogger(message.logger).log(message.level, "%s", message.text)
