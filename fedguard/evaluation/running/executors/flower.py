"""Flower's simulation: each cell is a Flower app, whose strategy is guarded."""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Iterable, Sequence
from functools import partial
from threading import Event, Thread
from typing import Any

from ....core.errors import ParameterError, WorkerError
from ....core.extras import extra_module
from ....core.named_code import GIVEN_PREFIX
from ....core.threads import single_thread
from ...results.store import CellResult
from ..task import Task, run_task
from .base import Done, OnRound

#: Nothing is installed or reported while it runs.
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
#: Seconds between two looks at the replies, and to wait for an interrupted simulation.
POLL, GRACE = 0.05, 20.0


class Flower:
    """Each cell as a Flower simulation (``pip install "fedguard[flower]"``), one after another.

    The clients are a ClientApp that trains as the pool's workers do; the server is a GuardedStrategy.
    Flower's clients send models, not updates, so results agree with the other executors' to rounding.

    Args:
        workers: CPUs of this machine to use.
        num_cpus: CPUs that a client takes, for the scheduling; it runs on one thread in any case.
        num_gpus: GPUs that it takes; fractions share one.

    Raises:
        ParameterError: Flower or its simulation is not installed.
    """

    def __init__(self, workers: int | None = None, num_cpus: float = 1, num_gpus: float = 0) -> None:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        extra_module("ray", "flower", "executor flower")
        self.simulation = extra_module("flwr.simulation", "flower", "executor flower")
        logging.getLogger("flwr").setLevel(logging.ERROR)
        self.workers = workers
        self.takes = {"num_cpus": num_cpus, "num_gpus": num_gpus}

    def run(self, tasks: Sequence[Task], on_round: OnRound) -> Generator[Done, None, None]:
        """Run every task once.

        Raises:
            ParameterError: a cell watches (``mode: shadow``), replays a recording, or votes (``flcert``).
            WorkerError: the simulation ended before the cell did.
        """
        check_tasks(tasks)
        for position, task in enumerate(tasks):
            yield position, self._run(task, partial(on_round, position))

    def _run(self, task: Task, after_round: Any) -> list[CellResult]:
        from flwr.serverapp import ServerApp

        from ....simulation.flower import client_app, federate_on

        server, stop = ServerApp(), Event()
        done, failed = list[list[CellResult]](), list[BaseException]()

        @server.main()
        def main(grid: Any, context: Any) -> None:
            try:
                near: Any = _Stoppable(grid, stop)
                with single_thread():
                    done.append(run_task(task, after_round=after_round, federate=federate_on(near)))
            except BaseException as error:
                failed.append(error)

        started = {"num_cpus": self.workers, "include_dashboard": False, "log_to_driver": False}
        started["logging_level"] = logging.ERROR
        simulation = Thread(
            target=self.simulation.run_simulation,
            args=(server, client_app(), task.cells[0].clients),
            kwargs={"backend_config": {"client_resources": self.takes, "init_args": started}},
            daemon=True,
        )
        simulation.start()
        try:
            while simulation.is_alive():
                simulation.join(0.2)
        finally:  # interrupted: the app stops waiting for its clients, and the simulation ends
            stop.set()
            simulation.join(GRACE)
        if failed:
            raise failed[0]
        if not done:
            raise WorkerError("the Flower simulation ended too early; run the same command to resume")
        return done[0]


class _Stoppable:
    """A grid that gives up waiting for replies when it is told to."""

    def __init__(self, grid: Any, stop: Event) -> None:
        self._grid = grid
        self._stop = stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._grid, name)

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        """Send, and poll for all replies."""
        waiting, found = set(self._grid.push_messages(messages)), list[Any]()
        while waiting:
            if self._stop.wait(POLL):
                raise WorkerError("the Flower simulation was interrupted; run the same command to resume")
            for reply in self._grid.pull_messages(waiting):
                waiting.discard(reply.metadata.reply_to_message_id)
                found.append(reply)
        return found


def check_tasks(tasks: Sequence[Task]) -> None:
    """Refuse cells that cannot run as a Flower app.

    Raises:
        ParameterError: names the reason.
    """
    for cell in (cell for task in tasks for cell in task.cells):
        if cell.mode != "closed":
            raise ParameterError(
                f"executor flower runs defenses that act, not mode {cell.mode!r}; set mode=closed"
            )
        if f'"{GIVEN_PREFIX}:' in cell.model_dump_json():
            raise ParameterError(
                "executor flower starts clients that cannot get objects from here; name them by module:Class"
            )
        if cell.defense.flcert is not None:
            raise ParameterError(
                "executor flower trains one global model; flcert needs several: use the pool"
            )
