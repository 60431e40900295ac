"""One case: make a mutant, show it to the product's entry points, and see what comes of it."""

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

#: Seconds of processor time that a case may take.
SECONDS = 2.0
#: Where a system has files in memory: a ledger waits for its disk after every round.
MEMORY = "/dev/shm"  # noqa: S108 - folders of our own in it
#: A module that nothing may import on the word of a file; ``CODE`` names a class of it.
CANARY = "fedguard_fuzz_canary"
CODE = f"{CANARY}:Boom"

Rng = np.random.Generator
#: What an entry point is called, and a call of it.
Step = tuple[str, Callable[[], object]]
Verdict = Literal["accepted", "refused", "error", "hang"]


@dataclass
class Mutant:
    """A changed artifact, ready to be shown to the product.

    Attributes:
        steps: the entry points; each is tried, whatever the ones before it say.
        changes: what was done to the artifact, in words.
        whole: whether checksums and schema still hold.
        check: called afterwards; raises if something happened that must not.
        refused: called afterwards where no step refuses: whether the product turned the mutant down.
    """

    steps: Sequence[Step]
    changes: list[str] = field(default_factory=list)
    whole: bool = True
    check: Callable[[], object] = lambda: None
    refused: Callable[[], bool] = lambda: False


class Kind(Protocol):
    """A kind of input."""

    def make(self, rng: Rng, folder: Path) -> Mutant:
        """A mutant; its files go into the folder, which is empty."""


class Result(NamedTuple):
    """What became of a case.

    Attributes:
        verdict: "accepted", "refused" with a typed error, "error" (an untyped one), or "hang".
        whole: whether the mutant passed checksums and schema.
        seconds: wall time.
        why: of an error or a hang: type, message and innermost line of the product.
        where: the same without the message; what failures are told apart by.
    """

    verdict: Verdict
    whole: bool
    seconds: float
    why: str = ""
    where: str = ""


class TooSlow(BaseException):
    """The time of a case is over; no ``except Exception`` keeps it from ending the case."""


class Forbidden(Exception):  # noqa: N818 - what happened is forbidden
    """Something happened that no input may bring about."""


def run_case(kind: Kind, name: str, seed: int, bound: float = SECONDS) -> Result:
    """Run one case in this process.

    Args:
        kind: makes the mutant.
        name: its name, which tells its random numbers from those of other kinds.
        seed: of the case.
        bound: seconds of processor time until it counts as a hang.
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
        except BaseException as error:  # a panic of compiled code is no Exception
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
    """The innermost line of the product in a traceback, outside this package."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "fedguard" in f.filename or _top(f)]
    own = [f for f in frames if "testing" not in Path(f.filename).parts]
    last = (own or traceback.extract_tb(error.__traceback__))[-1]
    return f"{'/'.join(Path(last.filename).parts[-2:])}:{last.lineno}"


def _top(frame: traceback.FrameSummary) -> bool:
    return Path(frame.filename).parent.name in ("detectors", "attacks")


# --- bounds


@contextlib.contextmanager
def _bounded(seconds: float) -> Iterator[None]:
    """Raise TooSlow in the block after so much processor time, where the system has such a timer.

    What does not come back to Python is ended by the watchdog of a worker process (see ``driver``).
    """
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise TooSlow(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.2)  # again and again: it may be raised in a destructor
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class _Watch(importlib.abc.MetaPathFinder):
    """Notes that somebody wants to import the canary (there is none), and what is printed."""

    def __init__(self) -> None:
        self.asked = False
        self.bytes = io.BytesIO()
        self.printed = io.TextIOWrapper(self.bytes, encoding="utf-8", write_through=True)

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        self.asked |= fullname.partition(".")[0] == CANARY

    def look(self) -> None:
        """Raise if code was asked for, or if what was printed drives a terminal."""
        if self.asked:
            raise Forbidden(f"{CANARY} was imported: a file chose what is run")
        text = self.bytes.getvalue().decode()
        wrong = sorted({c for c in text if c < " " and c not in "\n\t\r"})
        if wrong:
            raise Forbidden(f"{wrong[0]!r} was printed: a file drives the terminal")


class _Formatting(logging.Handler):
    """Formats every message, as a log file would, and keeps none."""

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


@contextlib.contextmanager
def _watched() -> Iterator[_Watch]:
    """Nothing reaches the screen, every log message is formatted, and imports of the canary are noted."""
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
