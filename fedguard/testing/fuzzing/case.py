"""Run one case: make a mutant, pass it to the entry points, and classify what happens."""

from __future__ import annotations

import contextlib
import importlib.abc
import io
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from ...core.errors import FedGuardError

#: Processor time limit of a case, in seconds.
SECONDS = 2.0
#: A folder in memory, if the system has one; a ledger syncs its disk after every round.
MEMORY = "/dev/shm"  # noqa: S108 - folders of our own in it
#: A module that no file may cause to be imported; ``CODE`` names a class in it.
CANARY = "fedguard_fuzz_canary"
CODE = f"{CANARY}:Boom"

Rng = np.random.Generator
#: The name of an entry point, and a function that calls it.
Step = tuple[str, Callable[[], object]]
Verdict = Literal["accepted", "refused", "error", "hang"]


@dataclass
class Mutant:
    """A changed artifact, ready for the entry points.

    Attributes:
        steps: the entry points; all are tried, whether or not earlier ones fail.
        changes: the changes to the artifact, in words.
        whole: whether checksums and schema still hold.
        check: called afterwards; raises if something forbidden happened.
        refused: called afterwards if no step raised; whether the mutant was refused in another way.
    """

    steps: Sequence[Step]
    changes: list[str] = field(default_factory=list)
    whole: bool = True
    check: Callable[[], object] = lambda: None
    refused: Callable[[], bool] = lambda: False


class Kind(Protocol):
    """A kind of input."""

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """Make a mutant; writes its files to the folder, which is empty."""


class Result(NamedTuple):
    """The result of a case.

    Attributes:
        verdict: "accepted", "refused" with a typed error, "error" (an untyped one), or "hang".
        whole: whether the mutant passed checksums and schema.
        seconds: wall time.
        why: for an error or a hang: type, message and innermost line in FedGuard.
        where: the same without the message; identifies a failure.
    """

    verdict: Verdict
    whole: bool
    seconds: float
    why: str = ""
    where: str = ""


class TooSlow(BaseException):
    """A case exceeded its time. Not an Exception, so that no ``except Exception`` catches it."""


class Forbidden(Exception):  # noqa: N818 - names what happened
    """Something happened that no input may cause."""


def run_case(kind: Kind, name: str, seed: int, bound: float = SECONDS) -> Result:
    """Run one case in this process.

    Args:
        kind: the kind of input, which makes the mutant.
        name: its name, which gives each kind its own random numbers.
        seed: the seed of the case.
        bound: processor time in seconds after which it counts as a hang.
    """
    rng = np.random.default_rng((zlib.crc32(name.encode()), seed))
    home = MEMORY if os.access(MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=home, ignore_cleanup_errors=True) as folder, _watched() as watch:
        mutant = kind.make(rng, Path(folder))
        begin, refused, step = time.perf_counter(), False, ""
        try:
            for name, call in mutant.steps:
                step = name
                refused |= not _goes_through(call, bound)
                watch.look()
            step = "afterwards"
            mutant.check()
            refused = refused or mutant.refused()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a panic in compiled code is not an Exception
            return _failure(error, f"{step} ({', '.join(mutant.changes)})", mutant.whole, begin)
    return Result("refused" if refused else "accepted", mutant.whole, time.perf_counter() - begin)


def _goes_through(call: Callable[[], object], bound: float) -> bool:
    try:
        with _bounded(bound):
            call()
    except FedGuardError:
        return False
    return True


def _failure(error: BaseException, step: str, whole: bool, begin: float) -> Result:
    verdict: Verdict = "hang" if isinstance(error, TooSlow) else "error"
    line, name = product_line(error), type(error).__name__
    text = " ".join(str(error).split())[:200].encode("ascii", "backslashreplace").decode()
    why = f"{step}: {name}: {text} at {line}"
    return Result(verdict, whole, time.perf_counter() - begin, why, f"{name} at {line}")


def product_line(error: BaseException) -> str:
    """Return the innermost line of FedGuard, outside this package, in a traceback."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "fedguard" in f.filename or _top(f)]
    own = [f for f in frames if "testing" not in Path(f.filename).parts]
    last = (own or traceback.extract_tb(error.__traceback__))[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}"


def _top(frame: traceback.FrameSummary) -> bool:
    return Path(frame.filename).parent.name in ("detectors", "attacks")


# --- bounds


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block after this much processor time, if the system has such a timer.

    The watchdog of a worker process (see ``driver``) ends code that does not return to Python.
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise TooSlow(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.2)  # repeatedly: the first may be lost in a destructor
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _Watch(importlib.abc.MetaPathFinder):
    """Records attempts to import the canary, which does not exist, and everything printed."""

    def __init__(self) -> None:
        self.asked = False
        self.bytes = io.BytesIO()
        self.printed = io.TextIOWrapper(self.bytes, encoding="utf-8", write_through=True)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        self.asked |= fullname.partition(".")[0] == CANARY

    def look(self) -> None:
        """Raise if code was to be imported, or if the output controls a terminal."""
        if self.asked:
            raise Forbidden(f"{CANARY} was imported: a file chose the code to run")
        text = self.bytes.getvalue().decode()
        wrong = sorted({c for c in text if c < " " and c not in "\n\t\r"})
        if wrong:
            raise Forbidden(f"{wrong[0]!r} was printed: a file controls the terminal")


class _Formatting(logging.Handler):
    """Formats every message, as a log file would, and discards it."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


@contextlib.contextmanager
def _watched() -> Iterator[_Watch]:
    """Capture all output, format every log message, and record imports of the canary."""
    watch, handler, logger = _Watch(), _Formatting(), logging.getLogger("fedguard")
    loud = logging.getLogger("flwr")
    state = [(log, log.propagate, log.level, log.handlers) for log in (logger, loud)]
    for log in (logger, loud):
        log.propagate, log.handlers = False, [handler]
        log.setLevel(logging.INFO)
    sys.meta_path.insert(0, watch)
    try:
        with (
            contextlib.redirect_stdout(watch.printed),
            contextlib.redirect_stderr(watch.printed),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield watch
    finally:
        sys.meta_path.remove(watch)
        for log, propagate, level, handlers in state:
            log.propagate, log.handlers = propagate, handlers
            log.setLevel(level)
