"""Single-threaded units of work: float32 sums depend on the number of threads, but results must not.

The limits below hold for a whole process, or for a thread, depending on the library. Several threads may ask
for them at the same time: the first sets what the process shares, and the last sets it back.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

_lock = threading.Lock()
_forever = False  # whether this process is single-threaded for good
_inside = 0  # how many threads are in single_thread
_before = 1  # torch's threads before the first of them
_here = threading.local()  # whether this thread is one of them
#: How many threads may work on blocks, whatever torch may use; see :func:`blocks_on`.
_BLOCKS: ContextVar[int] = ContextVar("blocks", default=1)
#: In a thread that helps another one: set once nobody wants the result any more.
_ENDED: ContextVar[threading.Event | None] = ContextVar("ended", default=None)


class Unwanted(Exception):  # noqa: N818 - nothing is wrong
    """Work was given up since nobody wants its result any more."""


def _after_fork() -> None:
    """In a forked process, where nobody would release the lock."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Run the block with one thread in torch and in every BLAS and OpenMP library; restore afterwards."""
    own, nested = torch.get_num_threads(), getattr(_here, "inside", False)
    if own == 1 and (_forever or nested):
        yield
        return
    if nested:  # somebody has changed it within the block
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(own)
        return
    openmp = _libraries(len(sys.modules)).select(user_api="openmp")
    try:
        with one_blas_thread(), openmp.limit(limits=1):
            _enter(own)
            try:
                yield
            finally:
                own = _leave()
    finally:
        if torch.get_num_threads() != own:  # it is this thread's own, and another one may still be inside
            for library in openmp.lib_controllers:
                library.set_num_threads(own)


def _enter(own: int) -> None:
    global _inside, _before
    with _lock:
        if not _inside:
            _before = own
        torch.set_num_threads(1)
        _inside += 1
    _here.inside = True


def _leave() -> int:
    """Restore torch's threads if this is the last; returns how many there were."""
    global _inside
    _here.inside = False
    with _lock:
        _inside -= 1
        if not _inside:
            torch.set_num_threads(_before)
        return _before


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """The loaded libraries; looking for them takes 2 ms, so only when something was imported since."""
    return ThreadpoolController()


class _OneBlasThread:
    """One thread in every BLAS, as long as any thread is inside.

    OpenBLAS lets only the thread that lowered its number of threads raise it again. If another one leaves
    last, BLAS keeps one thread until the next block ends, so the numbers of before are kept until then.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._before: dict[str, int] = {}  # by library
        self._lowered = 0  # the thread that did
        self._kept = False  # whether the numbers are of an earlier block, which could not restore them

    def enter(self) -> None:
        """Limit what is loaded."""
        with _lock:
            if not self._inside:
                self._before = self._before if self._kept else {}
                self._lowered = threading.get_ident()
            self._inside += 1
            for library in self._loaded():
                self._before.setdefault(library.filepath, library.get_num_threads())
                library.set_num_threads(1)

    def leave(self) -> None:
        """Restore what the first found, if this is the last."""
        with _lock:
            self._inside -= 1
            if self._inside:
                return
            for library in self._loaded():
                library.set_num_threads(self._before.get(library.filepath, 1))
            self._kept = threading.get_ident() != self._lowered

    def _loaded(self) -> list[Any]:
        libraries: list[Any] = _libraries(len(sys.modules)).select(user_api="blas").lib_controllers
        return libraries


_blas = _OneBlasThread()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the block with one thread in the BLAS that NumPy calls; torch's threads stay as they are."""
    if _forever:
        yield
        return
    _blas.enter()
    try:
        yield
    finally:
        _blas.leave()


def stay_single_threaded() -> None:
    """As :func:`single_thread`, for the rest of the process and for libraries that are loaded later."""
    global _forever
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    threadpool_limits(limits=1)
    torch.set_num_threads(1)
    _forever = True


@contextlib.contextmanager
def blocks_on(count: int) -> Iterator[None]:
    """Within the block, ``count`` threads share the work on blocks of updates, also in :func:`single_thread`.

    Each block is one thread's, so results have the same bits.
    """
    token = _BLOCKS.set(count)
    try:
        yield
    finally:
        _BLOCKS.reset(token)


def block_threads() -> int:
    """How many threads share the work on blocks: as many as torch may use, or as :func:`blocks_on` says."""
    return max(torch.get_num_threads(), _BLOCKS.get())


@contextlib.contextmanager
def helping(ended: threading.Event) -> Iterator[None]:
    """The block is work for another thread, which sets ``ended`` if it wants no result any more."""
    token = _ENDED.set(ended)
    try:
        yield
    finally:
        _ENDED.reset(token)


def is_helping() -> bool:
    """Whether this thread works for another one; see :func:`helping`."""
    return _ENDED.get() is not None


def go_on() -> None:
    """Raise :class:`Unwanted` if this thread helps another one that wants no result any more."""
    ended = _ENDED.get()
    if ended is not None and ended.is_set():
        raise Unwanted
