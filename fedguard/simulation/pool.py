"""A pool of worker processes for independent, coarse pieces of work, such as one client's training.

Results do not depend on the number of workers: every piece runs on one thread, in a worker or here.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from ..contracts.server import map_in_order
from ..core.errors import FedGuardError, ParameterError, ResultsError
from ..core.files import why
from ..core.interrupts import deferred, leave_to_parent
from ..core.threads import single_thread, stay_single_threaded
from .packing import Mapped, pack, unpack

T = TypeVar("T")
R = TypeVar("R")

_DIED = (
    "a worker process died: it was killed (out of memory?) or could not start (a script that "
    'uses workers needs `if __name__ == "__main__":`). Try fewer workers, or 0'
)
_SHARED: ContextVar[Mapping[str, Any]] = ContextVar("shared", default={})  # noqa: B039 - never mutated
_SCRATCH: ContextVar[Path | None] = ContextVar("scratch", default=None)
_APART: ContextVar[bool] = ContextVar("apart", default=False)
_FAILURES: list[Exception] = []  # from this worker's start


def shared() -> Mapping[str, Any]:
    """The ``shared`` data of the pool that runs the current piece of work; read only."""
    return _SHARED.get()


def scratch() -> Path | None:
    """In a worker: a folder shared by the pool's workers and deleted with the pool; None elsewhere."""
    return _SCRATCH.get()


@contextmanager
def without_main() -> Iterator[None]:
    """Within the block, workers start without importing the script that started them.

    So a script needs no ``if __name__ == "__main__":``. Its own classes must travel by value.
    """
    token = _APART.set(True)
    try:
        yield
    finally:
        _APART.reset(token)


@contextmanager
def _starting() -> Iterator[None]:
    """Around calls that start processes: Ctrl-C waits, and in :func:`without_main` the script is hidden.

    multiprocessing tells a new process what to import by ``__spec__`` and ``__file__`` of the script.
    """
    main = sys.modules["__main__"]
    hidden = {name: main.__dict__.pop(name) for name in ("__file__",) if _APART.get() and name in vars(main)}
    spec = getattr(main, "__spec__", None)
    with deferred():
        try:
            if _APART.get():
                main.__spec__ = None
            yield
        finally:
            main.__spec__ = spec
            main.__dict__.update(hidden)


class Workers:
    """Runs independent pieces of work in order, in several processes or in this one.

        with Workers(4, shared={"start": start}) as workers:
            updates = workers.map(train, clients)  # train reads shared()["start"]

    Workers are spawned once for all calls of ``map``, and end with the pool or with this process. Functions
    must be importable, and a script that starts workers needs ``if __name__ == "__main__":``. A pool that is
    sent to a worker runs its work there sequentially.

    Args:
        count: processes; 0 and 1 run everything in this process.
        shared: data for all pieces of work, returned by :func:`shared`. Its arrays and tensors are in
            memory once for all workers.
        initializer: called once in every worker (or here) before its first piece of work.
        initargs: its arguments; they may include queues and locks; put large tensors into ``shared``.

    Raises:
        ParameterError: a negative count.
    """

    def __init__(
        self,
        count: int = 0,
        shared: Mapping[str, Any] | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        if count < 0:
            raise ParameterError(f"{count} workers; use 0 to run everything in this process")
        self.count = count
        self._shared = shared
        self._initializer = initializer
        self._initargs = initargs
        self._executor: ProcessPoolExecutor | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __reduce__(self) -> tuple[type[Workers], tuple[()]]:
        return Workers, ()

    def __enter__(self) -> Workers:
        if self.count > 1:
            mapped = self._share()
            self._executor = ProcessPoolExecutor(
                self.count,
                multiprocessing.get_context("spawn"),
                initializer=_start,
                initargs=(mapped, self._initializer, self._initargs),
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with deferred():  # a second Ctrl-C would leave processes, semaphores or the folder behind
            self._end(at_once=kind is not None)

    def _end(self, at_once: bool) -> None:
        if self._executor is not None:
            processes = list(self._executor._processes.values())
            if at_once:  # do not wait for abandoned work
                for process in processes:
                    process.kill()  # workers leave SIGTERM to this process
            self._executor.shutdown(wait=True, cancel_futures=True)
            for process in processes:
                process.join()
            self._executor = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _share(self) -> Mapped:
        """Write the shared data to a folder that is deleted with the pool."""
        place = tempfile.gettempdir()
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="fedguard-")
            return Mapped.write(self._shared or {}, Path(self._folder.name) / "shared")
        except OSError as error:
            if self._folder is not None:
                self._folder.cleanup()
            where = f"{place} (TMPDIR names another folder)"
            raise ResultsError(f"cannot share data with workers in {where}: {why(error)}") from None

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """``[function(item) for item in items]``; raises the first error unchanged.

        Raises:
            FedGuardError: a worker died.
        """
        if self.count <= 1:
            return self.here(map_in_order, function, items)
        return list(self.imap(function, items))

    def imap(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yield the results of :meth:`map` in order, each as soon as it is available."""
        if self.count <= 1:
            for item in items:
                yield self.here(function, item)
            return
        if self._executor is None:
            raise FedGuardError("the workers are not running; use `with Workers(…) as workers:`")
        pieces = [_Piece((function, item)) for item in items]
        try:
            with _starting():
                futures = [self._executor.submit(_call, piece) for piece in pieces]
            while futures:
                yield unpack(futures.pop(0).result())
        except BrokenProcessPool as error:
            raise FedGuardError(_DIED) from error
        finally:
            _drop(pieces)

    def unordered(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[int, R]]:
        """Yield (position of the item, result) in order of completion.

        Raises:
            FedGuardError: a worker died.
        """
        if self.count <= 1:
            for position, item in enumerate(items):
                yield position, self.here(function, item)
            return
        if self._executor is None:
            raise FedGuardError("the workers are not running; use `with Workers(…) as workers:`")
        pieces = [_Piece((function, item)) for item in items]
        try:
            with _starting():
                futures = {self._executor.submit(_call, piece): at for at, piece in enumerate(pieces)}
            while futures:
                done, _ = wait(futures, return_when=FIRST_COMPLETED)
                for future in sorted(done, key=futures.__getitem__):
                    yield futures.pop(future), unpack(future.result())
        except BrokenProcessPool as error:
            raise FedGuardError(_DIED) from error
        finally:
            _drop(pieces)

    def here(self, function: Callable[..., R], *args: Any) -> R:
        """``function(*args)`` in this process, under the conditions of a worker: one thread, ``shared``."""
        token = None if self._shared is None else _SHARED.set(self._shared)
        try:
            with single_thread():
                if self._initializer is not None and self.count <= 1:
                    self._initializer(*self._initargs)
                    self._initializer = None
                return function(*args)
        finally:
            if token is not None:
                _SHARED.reset(token)


class _Piece:
    """A piece of work: packed only when a worker is free, and empty once nobody waits for its result.

    ``Future.cancel`` would do, but before Python 3.12 the thread that notices a killed worker fails at a
    future that was cancelled, prints a traceback and leaves the queues behind.
    """

    def __init__(self, value: Any) -> None:
        self.value = value
        self.dropped = False

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        return bytes, (b"" if self.dropped else pack(self.value),)


def _drop(pieces: Iterable[_Piece]) -> None:
    """Have the pieces that no worker has begun not done."""
    for piece in pieces:
        piece.dropped = True


def _start(mapped: Mapped, initializer: Callable[..., object] | None, initargs: tuple[Any, ...]) -> None:
    """Prepare a worker. Errors are raised later: raised here, they would kill the worker and be hidden."""
    leave_to_parent()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    stay_single_threaded()
    try:
        _SHARED.set(mapped.read())
        _SCRATCH.set(mapped.path.parent)
        if initializer is not None:
            initializer(*initargs)
    except Exception as error:
        _FAILURES.append(error)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(payload: Any) -> bytes:
    if not payload:  # a dropped piece
        return b""
    try:
        if _FAILURES:
            raise _FAILURES[0]
        function, item = unpack(payload)
        return pack(function(item))
    except Exception as error:
        if _survives_pickling(error):
            raise
        raise FedGuardError(f"{type(error).__name__}: {error}") from error


def _survives_pickling(error: Exception) -> bool:
    """Whether the parent can unpickle this error; an error that it cannot unpickle breaks the pool."""
    try:
        return type(pickle.loads(pickle.dumps(error))) is type(error)  # noqa: S301 - our own
    except Exception:
        return False
