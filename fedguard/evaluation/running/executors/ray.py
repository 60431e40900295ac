"""A Ray cluster: cells, or the clients of one cell, spread over its machines."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from ....contracts.server import map_in_order
from ....core.errors import FedGuardError, WorkerError
from ....core.extras import extra_module
from ....core.named_code import GIVEN
from ....core.threads import single_thread
from ....simulation.packing import pack, pack_given, receive_given, unpack
from ...results.store import CellResult
from ..task import Task, run_task
from .base import Done, OnRound, far_job, packed, report

T = TypeVar("T")
R = TypeVar("R")


class Ray:
    """A Ray cluster (``pip install "fedguard[ray]"``): an existing one, or one on this machine.

    The results folder and the data must be reachable under the same paths from every node. Progress is
    reported when a task is finished; with "clients", after every round.

    Args:
        address: of the cluster; None starts one here, "auto" uses the one that is running here.
        workers: CPUs for a cluster that is started here.
        parallel: "cells" runs each task on some node; "clients" runs one task at a time in this process and
            spreads its clients, and the test set, over the nodes.
        num_cpus: CPUs that a piece of work takes, for Ray's scheduling; it runs on one thread in any case.
        num_gpus: GPUs that it takes; fractions share one.

    Raises:
        ParameterError: Ray is not installed.
    """

    def __init__(
        self,
        address: str | None = None,
        workers: int | None = None,
        parallel: str = "cells",
        num_cpus: float = 1,
        num_gpus: float = 0,
    ) -> None:
        self.ray = extra_module("ray", "ray", "executor ray")
        self.address = address
        self.workers = workers
        self.parallel = parallel
        self.takes = {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once.

        Raises:
            WorkerError: a worker or a node died, and Ray's retries failed too.
        """
        with self._cluster():
            yield from (self._one_by_one if self.parallel == "clients" else self._side_by_side)(
                tasks, on_round
            )

    def _side_by_side(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        job = self.ray.remote(**self.takes)(far_job)
        table = self.ray.put(pack_given())
        waiting = {job.remote(packed(task), table): p for p, task in enumerate(tasks)}
        while waiting:
            ready, _ = self.ray.wait(list(waiting))
            for reference in ready:
                position = waiting.pop(reference)
                results: list[CellResult] = _get(self.ray, reference)
                report(tasks[position], position, on_round)
                yield position, results

    def _one_by_one(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        spread = RayMap(self.ray, self.takes)
        for position, task in enumerate(tasks):
            with single_thread():
                results = run_task(task, spread, partial(on_round, position))
            yield position, results

    @contextmanager
    def _cluster(self) -> Iterator[None]:
        if self.ray.is_initialized():
            yield
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # work without num_gpus may use one
        here = {"num_cpus": self.workers, "include_dashboard": False} if self.address is None else {}
        self.ray.init(address=self.address, log_to_driver=False, logging_level="ERROR", **here)
        try:
            yield
        finally:
            self.ray.shutdown()


class RayMap:
    """``[function(item) for item in items]``, each item on some node.

    FedGuard's own errors are raised unchanged. A map that is sent to a node works there in order.

    Args:
        ray: the module.
        takes: what one item takes of the cluster.
    """

    def __init__(self, ray: Any, takes: dict[str, float]) -> None:
        self._ray = ray
        self._piece = ray.remote(**takes)(_far_piece)
        self._given = ray.put(pack_given())

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Run the items, and return their results in order."""
        waiting = [self._piece.remote(pack((function, item)), self._given) for item in items]
        try:
            return [unpack(_get(self._ray, reference)) for reference in waiting]
        except BaseException:
            for reference in waiting:
                self._ray.cancel(reference)
            raise

    def __reduce__(self) -> tuple[Callable[[], Any], tuple[()]]:
        return _plain_map, ()


def _plain_map() -> Any:
    return map_in_order


def _far_piece(payload: bytes, table: bytes) -> bytes:
    if not GIVEN:
        receive_given(table)
    function, item = unpack(payload)
    with single_thread():
        return pack(function(item))


def _get(ray: Any, reference: Any) -> Any:
    """A result of the cluster; errors of the work itself are raised as they were."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:  # carries the error of the task
        cause = error.cause
        raise (cause if isinstance(cause, FedGuardError) else error) from None
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0]
        raise WorkerError(
            f"a Ray worker died, and any retry failed ({first}); run the same command to resume"
        ) from None
