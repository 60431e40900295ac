"""Followers of a running suite: the terminal, JSON lines, experiment trackers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...simulation.settings import Cell
from ..results.store import CellResult, Store
from ..suites.suite import Suite

if TYPE_CHECKING:
    from .executors import Executor


class Follower:
    """Receives the events of a suite in this process; every method ignores its event unless overridden."""

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """A suite starts; ``runs`` and ``rounds`` are left."""

    def round_done(self, cell: Cell, index: int) -> None:
        """A round is done. If several cells watch one federation, the cell is the first of them."""

    def run_done(self, result: CellResult) -> None:
        """A run is stored."""

    def ended(self, store: Store, seconds: float) -> None:
        """All runs are done."""

    def close(self) -> None:
        """Called last, even if the suite was interrupted."""


class Followers(Follower):
    """Several followers. One that fails is dropped, and the suite goes on.

    Args:
        members: the followers, in the order in which they receive events.
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
            except Exception as error:  # a tracker whose server is down must not end the suite
                self.members.remove(follower)
                name = type(follower).__name__
                sys.stderr.write(f"fedguard: {name} failed and receives nothing more: {error}\n")


def show_settled(suite: Suite, store: Store, followers: Sequence[Follower]) -> None:
    """Tell followers of a suite whose runs were all there before."""
    start, everybody = time.perf_counter(), Followers(followers)
    try:
        everybody.started(suite, store.folder, 0, 0)
        everybody.ended(store, time.perf_counter() - start)
    finally:
        everybody.close()


def run_followed(
    suite: Suite,
    folder: Path,
    workers: int,
    followers: Sequence[Follower],
    retry_failed: bool = False,
    executor: Executor | None = None,
    record: Path | None = None,
    force: bool = False,
) -> Store:
    """Run a suite with followers, see :func:`fedguard.evaluation.running.runner.run_suite`."""
    from .runner import run_suite  # it imports torch, which showing finished runs does not need

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
            force=force,
        )
        everybody.ended(store, time.perf_counter() - start)
    finally:
        everybody.close()
    return store
