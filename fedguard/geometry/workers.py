"""Work on many items in several threads, of which the calling one is always one.

The threads are kept for the next call. The caller waits for none of them to start: on a busy machine, where
they come late, it does the work itself. A thread that finds nothing to do goes back at once. So a call inside
another's work cannot lock up, nor can results that nobody takes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

#: Finished results per thread that may wait to be taken.
WAITING = 2

_LOCK = threading.Lock()
_POOLS: dict[int, ThreadPoolExecutor] = {}


def _after_fork() -> None:
    """In a forked process, which has none of the threads."""
    global _LOCK
    _LOCK = threading.Lock()
    _POOLS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _pool(size: int) -> ThreadPoolExecutor:
    with _LOCK:
        if size not in _POOLS:
            _POOLS[size] = ThreadPoolExecutor(size, thread_name_prefix="fedguard-blocks")
        return _POOLS[size]


def map_in_threads(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    count: int,
    ended: threading.Event | None = None,
) -> Iterator[Result]:
    """Yield ``work(item)`` for every item, in order.

    Args:
        work: the function.
        items: its arguments.
        count: how many threads, the calling one included; at least 2.
        ended: set once no more results are wanted, for work that takes long to end early.
    """
    job = _Job(work, items, count)
    try:
        for k in range(len(items)):
            yield job.result(k)
    finally:
        if ended is not None:
            ended.set()
        job.stop()


class _Job(Generic[Item, Result]):
    """The items of one call, handed out in order."""

    def __init__(self, work: Callable[[Item], Result], items: Sequence[Item], count: int) -> None:
        self._work: Any = work
        self._items, self._count = items, count
        self._pool = _pool(count - 1)
        self._changed = threading.Condition(threading.Lock())
        self._done: dict[int, tuple[bool, Any]] = {}  # item → whether it succeeded, and the result or error
        self._next = self._taken = 0
        self._helpers = self._busy = 0  # threads that were asked, and those that are at work

    def result(self, wanted: int) -> Result:
        """The result of an item, each after the one before; until it is there, do others."""
        self._ask()
        while (outcome := self._take(wanted)) is None:
            if (k := self._claim()) is not None:
                self._do(k)
            else:
                with self._changed:
                    self._changed.wait_for(lambda: wanted in self._done)
        succeeded, value = outcome
        if not succeeded:
            raise value
        found: Result = value
        return found

    def stop(self) -> None:
        """Hand out no more items, wait for those that threads work on, and let go of all."""
        with self._changed:
            self._next = len(self._items)
            self._changed.wait_for(lambda: not self._busy)
            self._work, self._items = None, ()  # a thread that still has to start keeps nothing alive

    def _ask(self) -> None:
        """Have as many threads help as there are items for, beside the caller's."""
        with self._changed:
            left = min(len(self._items), self._taken + WAITING * self._count) - self._next
            missing = min(self._count - 1 - self._helpers, left - 1)
            self._helpers += max(0, missing)
        for _ in range(missing):
            with contextlib.suppress(RuntimeError):  # the interpreter is shutting down
                self._pool.submit(self._help)

    def _help(self) -> None:
        """In a thread of the pool: do items while there are any."""
        while (k := self._claim(helping=True)) is not None:
            self._do(k, helping=True)

    def _take(self, wanted: int) -> tuple[bool, Any] | None:
        with self._changed:
            if wanted in self._done:
                self._taken = wanted + 1
            return self._done.pop(wanted, None)

    def _claim(self, helping: bool = False) -> int | None:
        with self._changed:
            if self._next >= min(len(self._items), self._taken + WAITING * self._count):
                self._helpers -= helping
                return None
            self._next += 1
            self._busy += helping
            return self._next - 1

    def _do(self, k: int, helping: bool = False) -> None:
        outcome: tuple[bool, Any]
        try:
            outcome = True, self._work(self._items[k])
        except BaseException as error:
            if not helping and not isinstance(error, Exception):
                raise  # the user ends the program
            outcome = False, error  # raised where the result is taken
        with self._changed:
            self._done[k] = outcome
            self._busy -= helping
            self._changed.notify_all()
