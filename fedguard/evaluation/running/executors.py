"""Where the tasks of a suite run: local worker processes, Ray, or Slurm. Results are bit-identical."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from ...core.errors import FedGuardError, ParameterError
from ...core.extras import extra_module
from ...core.named_code import GIVEN_PREFIX
from ...core.threads import single_thread
from ...simulation.datasets import Dataset
from ...simulation.packing import pack_given, receive_given
from ...simulation.pool import Workers
from ...simulation.recorded import LIVE
from ...simulation.settings import Cell
from ...simulation.setup import dataset_of
from ..results.store import CellResult
from .task import Task, run_task

#: Called in this process after every round, with the position of the task.
OnRound = Callable[[int, int], None]
#: A finished task: its position and its results.
Done = tuple[int, list[CellResult]]


class Executor(Protocol):
    """Runs tasks, in any order, and yields the results of each as soon as it finishes."""

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once."""
        ...


class Pool:
    """Worker processes on this machine, one thread each.

    Args:
        workers: how many; 1 runs everything in this process.
        parallel: "cells" gives every worker a task of its own; "clients" runs one task at a time and spreads
            its clients over the workers.
    """

    def __init__(self, workers: int, parallel: str = "cells") -> None:
        self.workers = workers
        self.parallel = parallel

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once."""
        if self.parallel == "clients" or self.workers <= 1:
            yield from self._one_by_one(tasks, on_round)
        elif tasks:
            yield from self._side_by_side(tasks, on_round)

    def _one_by_one(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        table = pack_given(_names_of_data(tasks)) if self.workers > 1 else b""
        with Workers(self.workers, _data(tasks), receive_given, (table,)) as pool:
            for position, task in enumerate(tasks):
                yield position, pool.here(run_task, task, pool.map, lambda t, p=position: on_round(p, t))

    def _side_by_side(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        queue = get_context("spawn").SimpleQueue()
        listener = Thread(target=_listen, args=(queue, on_round), daemon=True)
        listener.start()
        start = (queue, pack_given(_names_of_data(tasks)))
        with Workers(min(self.workers, len(tasks)), _data(tasks), _connect, start) as pool:
            yield from pool.unordered(_pool_job, [(p, _packed(task)) for p, task in enumerate(tasks)])
        queue.put(None)
        listener.join(timeout=5)


class Ray:
    """A Ray cluster (``pip install "fedguard[ray]"``): an existing one, or one on this machine.

    The results folder and the data must be reachable under the same paths from every node. Progress is
    reported when a task is finished.

    Args:
        address: of the cluster; None starts one here, "auto" uses the one that is running here.
        workers: CPUs for a cluster that is started here.

    Raises:
        ParameterError: Ray is not installed.
    """

    def __init__(self, address: str | None = None, workers: int | None = None) -> None:
        self.ray = extra_module("ray", "ray", "executor ray")
        self.address = address
        self.workers = workers

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once."""
        started = not self.ray.is_initialized()
        if started:
            here = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
            self.ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **here)
        try:
            job = self.ray.remote(num_cpus=1)(_far_job)
            table = self.ray.put(pack_given())
            waiting = {job.remote(_packed(task), table): p for p, task in enumerate(tasks)}
            while waiting:
                ready, _ = self.ray.wait(list(waiting))
                for reference in ready:
                    position = waiting.pop(reference)
                    results = self._get(reference)
                    _report(tasks[position], position, on_round)
                    yield position, results
        finally:
            if started:
                self.ray.shutdown()

    def _get(self, reference: Any) -> list[CellResult]:
        try:
            found: list[CellResult] = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:  # carries the error of the task
            cause = error.cause
            raise (cause if isinstance(cause, FedGuardError) else error) from None
        except self.ray.exceptions.RayError as error:
            first = str(error).strip().splitlines()[0]
            raise FedGuardError(
                f"a Ray worker died, and any retry failed ({first}); run the same command to resume"
            ) from None
        return found


class Slurm:
    """Slurm jobs through submitit (``pip install "fedguard[slurm]"``), one per task.

    The results folder and the data must be reachable under the same paths from every node.

    Args:
        folder: where submitit keeps its logs.
        cluster: "slurm"; "local" runs subprocesses here, for trying out.
        settings: submitit's parameters: slurm_partition, timeout_min, mem_gb, slurm_array_parallelism …

    Raises:
        ParameterError: submitit is not installed.
    """

    def __init__(self, folder: Path, cluster: str = "slurm", settings: dict[str, Any] | None = None) -> None:
        self.submitit = extra_module("submitit", "slurm", "executor slurm")
        self.folder = folder
        self.cluster = cluster
        self.settings = {"cpus_per_task": 1, "timeout_min": 24 * 60, **(settings or {})}

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once."""
        executor = self.submitit.AutoExecutor(folder=str(self.folder), cluster=self.cluster)
        executor.update_parameters(**self.settings)
        table = pack_given()
        with executor.batch():
            jobs = [executor.submit(_far_job, _packed(task), table) for task in tasks]
        waiting = {job: p for p, job in enumerate(jobs)}
        for job in self.submitit.helpers.as_completed(jobs):
            position = waiting.pop(job)
            results = job.result()
            _report(tasks[position], position, on_round)
            yield position, results


def make_executor(
    name: str, workers: int, parallel: str, address: str | None, folder: Path, slurm: dict[str, Any]
) -> Executor:
    """An executor by name.

    Raises:
        ParameterError: an unknown name, settings of another executor, or a missing extra.
    """
    if name not in ("pool", "ray", "slurm"):
        raise ParameterError(f"unknown executor {name!r}; use pool, ray or slurm")
    if address is not None and name != "ray":
        raise ParameterError(f"--address goes with --executor ray, not {name}")
    if slurm and name != "slurm":
        raise ParameterError(f"--slurm goes with --executor slurm, not {name}")
    if name == "ray":
        return Ray(address, workers)
    if name == "slurm":
        cluster = slurm.pop("cluster", "slurm")
        return Slurm(folder / "slurm", cluster, slurm)
    return Pool(workers, parallel)


def _report(task: Task, position: int, on_round: OnRound) -> None:
    for index in range(task.cells[0].rounds):
        on_round(position, index)


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


#: A task as plain values, which any executor can send.
Packed = tuple[tuple[int, ...], tuple[str, ...], str, float, str | None]


def _packed(task: Task) -> Packed:
    cells = tuple(cell.model_dump_json() for cell in task.cells)
    record = None if task.record is None else str(task.record)
    return task.runs, cells, str(task.checkpoint), task.seconds, record


def _unpacked(packed: Packed) -> Task:
    runs, cells, checkpoint, seconds, record = packed
    return Task(
        runs,
        tuple(Cell.model_validate_json(cell) for cell in cells),
        Path(checkpoint),
        seconds,
        None if record is None else Path(record),
    )


def _far_job(packed: Packed, table: bytes = b"") -> list[CellResult]:
    """A task on another machine or in a process that is not ours; ``table`` is from :func:`pack_given`."""
    receive_given(table)
    with single_thread():
        return run_task(_unpacked(packed))


_QUEUE: Any = None


def _connect(queue: Any, table: bytes) -> None:
    global _QUEUE  # one per worker process, set once when it starts
    _QUEUE = queue
    receive_given(table)


def _pool_job(job: tuple[int, Packed]) -> list[CellResult]:
    position, packed = job
    return run_task(_unpacked(packed), after_round=lambda index: _QUEUE.put((position, index)))


def _listen(queue: Any, on_round: OnRound) -> None:
    while (message := queue.get()) is not None:
        on_round(*message)
