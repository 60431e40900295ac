"""Ctrl-C and SIGTERM: ended in order, and held back while something must not be torn apart."""

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
    """Within the block, SIGTERM raises :class:`Terminated` once, so that everything is cleared away."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second one must not interrupt the clearing
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def deferred() -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM after the block; processes started in it never see them.

    They are the parent's to handle. Blocking the signals is not enough for that: another thread of a library
    may receive them, and Python handles them in the main thread all the same.
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
    """Processes started in the block inherit that these signals are blocked."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_to_parent() -> None:
    """In a worker: as :func:`deferred`, where signals cannot be blocked."""
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)
