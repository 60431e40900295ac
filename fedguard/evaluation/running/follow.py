"""Whoever follows a suite while it runs: the terminal, JSON lines, an experiment tracker."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...simulation.settings import Cell
from ..results.store import CellResult, Store
from ..suites.suite import Suite
from .executors import Executor
from .runner import run_suite


class Follower:
    """Hears of everything that happens to a suite, in this process; ignores it unless overridden."""

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """A suite starts, with so many runs and rounds left."""

    def round_done(self, cell: Cell, index: int) -> None:
        """A round is done; of the first cell, where several watch one federation."""

    def run_done(self, result: CellResult) -> None:
        """A run is stored."""

    def ended(self, store: Store, seconds: float) -> None:
        """Nothing is left to run."""

    def close(self) -> None:
        """Called last, also if the suite was interrupted."""


class Followers(Follower):
    """Several of them. One that fails is told nothing more, and costs no results.

    Args:
        members: in the order in which they are told.
    """

    def __init__(self, members: Sequence[Follower]) -> None:
        self.members = list(members)

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:  # noqa: D102
        self._tell(lambda f: f.started(suite, folder, runs, rounds))

    def round_done(self, cell: Cell, index: int) -> None:  # noqa: D102
        self._tell(lambda f: f.round_done(cell, index))

    def run_done(self, result: CellResult) -> None:  # noqa: D102
        self._tell(lambda f: f.run_done(result))

    def ended(self, store: Store, seconds: float) -> None:  # noqa: D102
        self._tell(lambda f: f.ended(store, seconds))

    def close(self) -> None:  # noqa: D102
        self._tell(lambda f: f.close())

    def _tell(self, call: Callable[[Follower], Any]) -> None:
        for follower in list(self.members):
            try:
                call(follower)
            except Exception as error:  # a tracker's server that is down must not cost a night's results
                self.members.remove(follower)
                name = type(follower).__name__
                sys.stderr.write(f"fedguard: {name} failed and is left out from here on: {error}\n")


def run_followed(
    suite: Suite,
    folder: Path,
    workers: int,
    followers: Sequence[Follower],
    retry_failed: bool = False,
    executor: Executor | None = None,
    record: Path | None = None,
) -> Store:
    """Run a suite with followers, see :func:`fedguard.evaluation.running.runner.run_suite`."""
    start, everybody = time.perf_counter(), Followers(followers)
    try:
        store = run_suite(
            suite,
            folder,
            workers,
            everybody.round_done,
            everybody.run_done,
            lambda runs, rounds: everybody.started(suite, folder, runs, rounds),
            retry_failed=retry_failed,
            executor=executor,
            record=record,
        )
        everybody.ended(store, time.perf_counter() - start)
    finally:
        everybody.close()
    return store
