"""The frame that all speed comparisons share: two sides, one process, one input, in alternation.

A topic is a module ``speed_<topic>.py`` with a function ``rows(quick: bool) -> list[Row]``, which
``python benchmarks/speed.py`` finds by its name. Such a module builds one input, wraps both sides as
functions without arguments, and returns ``compare(...)`` for each pair:

    def rows(quick: bool) -> list[Row]:
        X = normal_updates(100, 10**5 if quick else 10**6)
        ours, theirs = lambda: our_median(X), lambda: torch.median(X, 0).values
        return [compare("median", "torch.median", 10, ours, theirs, largest_difference)]

    if __name__ == "__main__":
        show(rows("--quick" in sys.argv))
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import importlib.metadata
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

REPEATS = 5
#: Work that takes less is repeated within one measurement, so that neither side pays for a cold cache.
SHORTEST = 0.02
ONE_CORE, clock = False, time.perf_counter


def use_one_core() -> None:
    """One thread for both sides and processor time, which other work on the machine hardly disturbs."""
    global ONE_CORE, clock
    ONE_CORE, clock = True, time.process_time


if "--one-core" in sys.argv:
    use_one_core()


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        work: what is done, with its size ("median 100×10⁶").
        against: the peer and its version, or what the slow side is.
        target: the ratio that is asked for; None if there is none.
        ratio: median over the repeats of peer seconds / our seconds; None if it was not measured.
        ours: our median seconds.
        theirs: the peer's median seconds.
        our_memory: peak of what our side adds to the resident memory, in MiB; NaN if unknown.
        their_memory: the same of the peer.
        threads: how many threads either side may use.
        repeats: how often each side was run, the warm-up not counted.
        agreement: how the results compare.
        note: anything else, such as why it was skipped or why a target is missed.
    """

    work: str
    against: str
    target: float | None = None
    ratio: float | None = None
    ours: float = math.nan
    theirs: float = math.nan
    our_memory: float = math.nan
    their_memory: float = math.nan
    threads: int = 0
    repeats: int = 0
    agreement: str = ""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is reached; None without a target or a measurement."""
        return None if self.target is None or self.ratio is None else self.ratio >= self.target


def compare(
    work: str,
    against: str,
    target: float | None,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    agree: Callable[[Any, Any], str],
    repeats: int = REPEATS,
    threads: int | None = None,
    note: str = "",
    scale: float = 1.0,
) -> Row:
    """Run both sides once for memory and agreement, then ``repeats`` times each in turn for time.

    The ratio is the median of the ratios of neighboring runs, so that a machine that gets slower or
    faster meanwhile does not favor a side. ``threads`` limits both sides; None leaves all cores to both.
    Where the peer's work is so many times the same, ``theirs`` may do a part of it once: its seconds count
    ``scale`` times.
    """
    count = 1 if ONE_CORE else threads or os.cpu_count() or 1
    with limited(count):
        our_result, our_memory = extra_memory(ours)
        their_result, their_memory = extra_memory(theirs)
        agreement = agree(our_result, their_result)
        del our_result, their_result
        pairs = [(seconds(ours), scale * seconds(theirs)) for _ in range(repeats)]
    return Row(
        work,
        against,
        target,
        statistics.median(b / a for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        our_memory,
        their_memory,
        count,
        repeats,
        agreement,
        note,
    )


def skipped(work: str, against: str, target: float | None, why: str = "not installed") -> Row:
    """A line that says what would be measured."""
    return Row(work, against, target, note=f"skipped: {why}")


def seconds(function: Callable[[], Any]) -> float:
    """How long one call takes, or the mean of several short ones; garbage is collected before."""
    gc.collect()
    calls, elapsed, start = 0, 0.0, clock()
    while calls == 0 or elapsed < SHORTEST:
        function()
        calls, elapsed = calls + 1, clock() - start
    return elapsed / calls


def extra_memory(function: Callable[[], Any]) -> tuple[Any, float]:
    """The result, and the peak of resident memory above what there was before, in MiB (Linux only)."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to the present
    except (OSError, AttributeError):
        return function(), math.nan
    before = _status("VmRSS")
    result = function()
    return result, max(0.0, _status("VmHWM") - before)


def _status(name: str) -> float:
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith(name))
    return int(line.split()[1]) / 1024


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """So many threads for torch and for every BLAS and OpenMP library."""
    before = torch.get_num_threads()
    try:
        with threadpool_limits(limits=threads):
            torch.set_num_threads(threads)
            yield
    finally:
        torch.set_num_threads(before)


def by_speed(sides: dict[str, Callable[[], Any]], threads: int | None = None) -> dict[str, Callable[[], Any]]:
    """The fastest in its second run first, on so many threads or all; one that raises is out."""
    times = {}
    with limited(1 if ONE_CORE else threads or os.cpu_count() or 1):
        for name, side in sides.items():
            try:
                side()
            except Exception as error:  # whatever a peer cannot do with this input
                print(f"({name}: {error})", file=sys.stderr)
            else:
                times[name] = seconds(side)
    return {name: sides[name] for name in sorted(times, key=times.__getitem__)}


def peer(name: str) -> ModuleType | None:
    """An importable package or module, or None."""
    importlib.import_module("fedguard.simulation.vision")  # byzfl imports torchvision, which may need help
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def version(name: str) -> str:
    """Name and version of an installed distribution."""
    try:
        return f"{name} {importlib.metadata.version(name)}"
    except importlib.metadata.PackageNotFoundError:
        return name


def normal_updates(n: int, d: int, scale: float = 1e-2, seed: int = 0) -> torch.Tensor:
    """(n, d) float32: a common direction and as much noise of each client."""
    draw = torch.Generator().manual_seed(seed)
    X = torch.randn(n, d, generator=draw)
    X += torch.randn(d, generator=draw)
    return X.mul_(scale)


def largest_difference(a: Any, b: Any) -> str:
    """The largest absolute difference as a share of the largest absolute value, and where it is notable."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    difference = np.abs(x - y) / max(np.abs(y).max(), 1e-300)
    notable = int((difference > 1e-6).sum())
    where = f" (in {notable:,} of {x.size:,})" if notable else ""
    return f"differ by {difference.max():.0e} of the largest{where}"


def same(a: Any, b: Any) -> str:
    """Whether two results are the same."""
    return "equal" if np.array_equal(np.asarray(a), np.asarray(b)) else "DIFFERENT"


def table(rows: list[Row]) -> str:
    """Markdown: work | against | target | measured ratio | seconds | memory | agreement, notes below."""
    lines = [
        "| work | against | at least | measured | seconds: ours / theirs "
        "| extra MiB: ours / theirs | results |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        target = "" if row.target is None else f"{row.target:g}×"
        measured = (
            "–" if row.ratio is None else f"{row.ratio:.3g}×" + (" (missed)" if row.met is False else "")
        )
        time_, memory = _pair(row.ours, row.theirs), _pair(row.our_memory, row.their_memory)
        lines.append(
            f"| {row.work} | {row.against} | {target} | {measured} | {time_} | {memory} | {row.agreement} |"
        )
    notes = [f"- {row.work}, {row.against}: {row.note}" for row in rows if row.note]
    return "\n".join(lines + (["", *notes] if notes else []))


def _pair(a: float, b: float) -> str:
    return " / ".join("–" if math.isnan(x) else f"{x:.3g}" for x in (a, b))


def show(rows: list[Row]) -> None:
    """Print the table, and under what it was measured."""
    threads = sorted({row.threads for row in rows if row.threads})
    repeats = sorted({row.repeats for row in rows if row.repeats})
    print(table(rows))
    print(f"\nthreads {threads}, repeats {repeats}, torch {torch.__version__}, NumPy {np.__version__}")
