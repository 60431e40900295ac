"""Ctrl-C and SIGTERM: an orderly end, deferred during critical sections."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM)


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextlib.contextmanager
def terminating() -> Iterator[None]:
    """Within the block, the first SIGTERM raises :class:`Terminated`, so that cleanup runs."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the cleanup
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM after the block; processes started in it never receive them.

    The parent handles the signals for its children. Blocking them is not enough: a library's thread may
    receive them, and Python then handles them in the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        with _blocked():
            yield
        return
    caught: list[int] = []
    before = {number: signal.signal(number, lambda n, _: caught.append(n)) for number in _ENDING}
    try:
        with _blocked():
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for late in dict.fromkeys(caught):
            signal.raise_signal(late)


@contextlib.contextmanager
def _blocked() -> Iterator[None]:
    """Block the signals; processes started in the block inherit this."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """Ignore the signals in a worker process, for systems that cannot block them (see :func:`deferred`)."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
