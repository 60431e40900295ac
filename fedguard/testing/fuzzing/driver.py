"""Run any number of cases on all cores, in worker processes that may die."""

from __future__ import annotations

import faulthandler
import queue
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from ...core.threads import single_thread
from . import kind_of
from .case import SECONDS, Result, Verdict, run_case

#: Number of cases that a worker gets at a time.
PART = 200
#: A case that does not return to Python within this many seconds ends its process and counts as a hang. Much
#: longer than SECONDS, as it is wall time and the machine may be busy.
PATIENCE = 10 * SECONDS
#: Bytes that a worker may allocate once everything is imported.
MEMORY = 2 * 2**30


@dataclass
class Tally:
    """The results of the cases of a kind.

    Attributes:
        cases: number of cases.
        whole: number that passed checksums and schema.
        verdicts: how many were accepted, refused, ended in an untyped error, or hung.
        seconds: total time of all cases.
        slowest: time of the slowest case.
        failures: untyped errors and hangs: where they happened → how to reproduce one, and why.
        counts: where they happened → how often.
    """

    cases: int = 0
    whole: int = 0
    verdicts: Counter[Verdict] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest: float = 0.0
    failures: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, seed: int, result: Result) -> None:
        """Count a case."""
        self.cases += 1
        self.whole += result.whole
        self.verdicts[result.verdict] += 1
        self.seconds += result.seconds
        self.slowest = max(self.slowest, result.seconds)
        if result.verdict in ("error", "hang"):
            self.counts[result.where] += 1
            if result.where not in self.failures:
                self.failures[result.where] = f"--seed {seed}: {result.why}"


def fuzz_here(name: str, cases: int, first: int = 0, bound: float = SECONDS) -> Tally:
    """Run cases of a kind in this process."""
    tally, kind = Tally(), kind_of(name)
    with single_thread():
        for seed in range(first, first + cases):
            tally.add(seed, run_case(kind, name, seed, bound))
    return tally


class _Part(NamedTuple):
    name: str
    first: int
    end: int


def fuzz_in_workers(
    cases: Mapping[str, int], workers: int, first: int = 0, patience: float = PATIENCE
) -> dict[str, Tally]:
    """Run cases of several kinds in worker processes; if one dies, its case fails and the others continue.

    Args:
        cases: kind → number of cases.
        workers: number of processes.
        first: the first seed of every kind.
        patience: seconds after which a case that does not return to Python ends its process.

    Raises:
        RuntimeError: a mutant could not be made, which is a bug in the fuzzer.
    """
    parts: queue.SimpleQueue[_Part] = queue.SimpleQueue()
    for name, count in cases.items():
        for start in range(first, first + count, PART):
            parts.put(_Part(name, start, min(start + PART, first + count)))
    tallies = {name: Tally() for name in cases}
    lock = threading.Lock()

    def note(part: _Part, seed: int, result: Result) -> None:
        with lock:
            tallies[part.name].add(seed, result)

    crew = [_Worker(parts, note, patience) for _ in range(workers)]
    threads = [threading.Thread(target=worker.run) for worker in crew]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    broken = [worker.broken for worker in crew if worker.broken]
    if broken:
        raise RuntimeError(f"a mutant cannot be made: {broken[0]}")
    return tallies


class _Worker:
    """A thread that feeds one worker process at a time, and starts another when it dies."""

    def __init__(
        self, parts: queue.SimpleQueue[_Part], note: Callable[[_Part, int, Result], None], patience: float
    ) -> None:
        self.parts = parts
        self.note = note
        self.patience = patience
        self.broken = ""

    def run(self) -> None:
        """Work until no cases are left."""
        with tempfile.TemporaryDirectory() as folder:
            trace = Path(folder) / "trace"
            left: _Part | None = None
            while not self.broken and (left is not None or not self.parts.empty()):
                left = self._with_a_process(left, trace)

    def _with_a_process(self, left: _Part | None, trace: Path) -> _Part | None:
        """Feed one process; returns the rest of its part if it dies."""
        context = get_context("spawn")
        here, there = context.Pipe()
        process = context.Process(target=_work, args=(there, str(trace), self.patience), daemon=True)
        process.start()
        there.close()
        with closing(here):
            while True:
                part = left or self._next()
                if part is None:
                    break
                seed = part.first
                try:
                    here.send(part)
                    for seed in range(part.first, part.end):
                        result = here.recv()
                        if isinstance(result, str):
                            self.broken = result
                            process.kill()
                            return None
                        self.note(part, seed, result)
                except (EOFError, OSError):
                    process.join()
                    self.note(part, seed, _death(process.exitcode, trace))
                    return part._replace(first=seed + 1) if seed + 1 < part.end else None
                left = None
            here.send(None)
        process.join()
        return None

    def _next(self) -> _Part | None:
        with suppress(queue.Empty):
            return self.parts.get_nowait()
        return None


def _work(parts: Connection, trace: str, patience: float) -> None:
    """The main function of a worker process."""
    _import_compiler()
    with single_thread(), Path(trace).open("w+", encoding="utf-8") as file:
        limited = False
        for part in iter(parts.recv, None):
            kind = kind_of(part.name)
            for seed in range(part.first, part.end):
                file.seek(0)
                file.truncate()
                faulthandler.dump_traceback_later(patience, exit=True, file=file)
                try:
                    result: Result | str = run_case(kind, part.name, seed)
                except Exception:  # a bug in the fuzzer: the mutant could not be made
                    result = f"{part.name}, seed {seed}: {traceback.format_exc()}"
                faulthandler.cancel_dump_traceback_later()
                parts.send(result)
                if not limited:
                    limited = _limit_memory()


def _import_compiler() -> None:
    """Let torch import its compiler, which the first optimizer does: half of the time that a case has."""
    import torch

    torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)


def _limit_memory() -> bool:
    """Limit this process's further memory allocation, if the system supports it."""
    with suppress(ImportError, OSError):
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    return True


def _death(code: int | None, trace: Path) -> Result:
    """Return the result of the case that ended a worker process."""
    text = trace.read_text(encoding="utf-8", errors="replace") if trace.exists() else ""
    frames = [line.strip() for line in text.splitlines() if line.strip().startswith("File")]
    own = [line for line in frames if "fedguard" in line and "/testing/" not in line] or frames
    where = own[0].replace('"', "").rpartition("/")[2] if own else "unknown"
    if "Timeout" in text:
        return Result("hang", True, 0.0, f"does not come back from {where}", f"no end at {where}")
    return Result("error", True, 0.0, f"the process ended with {code} at {where}", f"death at {where}")
