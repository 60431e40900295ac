"""Time the first rounds of a few runs, within a limit."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ...core.threads import single_thread
from ...simulation.federation import Federation
from ...simulation.flcert import FLCert
from ...simulation.keys import CellKey
from ...simulation.placement import cell_device
from ...simulation.records import RoundRecord
from ...simulation.settings import Cell
from ...simulation.shadow import Shadow
from .costs import Costs, Kind, Part, Timed

#: Timing ends after so many seconds, or after this share of the estimate.
SECONDS, SHARE = 5.0, 0.1
#: A first run is timed twice if it takes no longer; the difference is what a process does once.
AGAIN = 2.0


@dataclass
class Sample:
    """Runs that were timed.

    Attributes:
        timed: the runs.
        once: what a process does once: its imports, reading the data.
        left: how many kinds were not timed.
        seconds: how long the timing took.
    """

    timed: list[Timed] = field(default_factory=list)
    once: float = 0.0
    left: int = 0
    seconds: float = 0.0


def sample(cells: Sequence[Cell], total: Callable[[Costs], float]) -> Sample:
    """Time two rounds of a few runs, so that every attack, defense and point of the grid is in one of them.

    Args:
        cells: the runs of a suite.
        total: the seconds of all of them, for a limit to the timing.
    """
    start, before = time.perf_counter(), time.process_time()
    found = Sample()
    elsewhere: dict[str, list[Cell]] = {}
    for cell in cells:
        elsewhere.setdefault(Kind.of(cell).federation, []).append(cell)
    picks: list[list[Cell]] = [[cell] for cell in picked(next(iter(elsewhere.values())))]
    picks += list(elsewhere.values())[1:]  # one of each, the slowest: it tells most about the others
    for number, among in enumerate(picks):
        limit = max(SECONDS, SHARE * total(Costs(found.timed))) if found.timed else SECONDS
        if found.timed and time.perf_counter() - start > limit:
            found.left = len(picks) - number
            break
        one = _first_rounds(_slowest(among, found.timed))
        if number == 0:
            found.once, cold = before, one
            if _both(one) < AGAIN:
                one = _first_rounds(among[0])
                found.once += max(0.0, _both(cold) - _both(one))
        found.timed.append(one)
    found.seconds = time.perf_counter() - start
    return found


def _slowest(among: Sequence[Cell], timed: Sequence[Timed]) -> Cell:
    """The run that takes longest, by the times so far; the first of those that are alike."""
    if len(among) == 1 or not timed:
        return among[0]
    costs = Costs(timed)
    return max(
        {Kind.of(cell): cell for cell in reversed(among)}.values(), key=lambda cell: sum(costs.of(cell))
    )


def picked(cells: Sequence[Cell]) -> list[Cell]:
    """The fewest runs of one federation, about, in which every attack and every defense is."""
    kinds = [Kind.of(cell) for cell in cells]
    chosen: dict[int, Cell] = {}
    seen: set[tuple[str, str]] = set()
    for new in (2, 1):  # first runs whose attack and defense are both new
        for number, kind in enumerate(kinds):
            marks = {("attack", kind.attack), ("defense", kind.defense)} - seen
            if len(marks) >= new:
                chosen[number] = cells[number]
                seen |= marks
    return list(chosen.values())


def _both(one: Timed) -> float:
    return one.work.of(2) + one.judging.of(2)


def _first_rounds(cell: Cell) -> Timed:
    """Processor time (on a GPU, time) of up to two rounds."""
    clock = time.process_time if cell.device == "cpu" else time.perf_counter
    ends = [(clock(), time.perf_counter())]
    judging: list[float] = []
    with single_thread():  # as in the worker processes; with tiny work, many threads wait for each other
        for record in _rounds(cell):
            ends.append((clock(), time.perf_counter()))
            taken, wall = (b - a for a, b in zip(ends[-2], ends[-1], strict=True))
            parts = sum(s for name, s in record.seconds.items() if name != "training")
            judging.append(min(taken, parts * taken / max(wall, 1e-9)))
    whole = [b - a for (a, _), (b, _) in itertools.pairwise(ends)]
    work = [all - own for all, own in zip(whole, judging, strict=True)]
    return Timed(Kind.of(cell), Part(work[0], work[-1]), Part(judging[0], judging[-1]))


def _rounds(cell: Cell) -> Iterator[RoundRecord]:
    """The records of up to two rounds, as they are run."""
    few = cell.model_copy(update={"rounds": min(2, cell.rounds)})
    with cell_device(CellKey.of(few)):
        if cell.mode == "closed":
            federation = FLCert(few) if cell.defense.flcert else Federation(few)
            for index in range(few.rounds):
                yield federation.step(index)
            return
        shadow = Shadow([few])
        for index in range(few.rounds):
            progress = shadow.federation.advance(index)
            record = shadow.federation.record(progress)
            (watcher,) = shadow.watchers
            watcher.watch(progress, record)
            yield watcher.records[-1] if watcher.records else record
