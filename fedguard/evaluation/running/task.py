"""Tasks of a suite: one run, or all defenses that watch one federation; resumed from their checkpoints."""

from __future__ import annotations

import math
import re
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...contracts.server import map_in_order
from ...core.errors import FedGuardError, ResultsError, WorkerError
from ...core.peak_memory import PeakMemory
from ...core.state import State
from ...simulation.federation import Federation, Map
from ...simulation.flcert import FLCert
from ...simulation.keys import CellKey
from ...simulation.placement import cell_device
from ...simulation.recorded import recording_to
from ...simulation.records import RoundRecord
from ...simulation.settings import Cell
from ...simulation.shadow import Shadow
from ..results.code import code_version
from ..results.store import CellResult
from ..results.summary import summarize, times
from .checkpoint import Checkpoint, load_records, records_state

#: Called after every round with the number of the round.
AfterRound = Callable[[int], None]
#: Makes the federation of a cell.
Federate = Callable[[Cell, Map], Federation | FLCert]


@dataclass(frozen=True)
class Task:
    """The cells that one worker runs together.

    Attributes:
        runs: the numbers of the cells in the suite.
        cells: one cell, or (in shadow mode) all that differ in the defense only.
        checkpoint: the file of its state.
        seconds: the least time between two checkpoints.
        record: the folder to record its federation to, if any.
    """

    runs: tuple[int, ...]
    cells: tuple[Cell, ...]
    checkpoint: Path
    seconds: float
    record: Path | None = None


def tasks_of(
    cells: Sequence[tuple[int, Cell]], folder: Path, seconds: float, record: Path | None = None
) -> list[Task]:
    """The numbered cells of a suite as tasks; cells that watch the same federation form one task."""
    groups: dict[str, list[tuple[int, Cell]]] = {}
    for run, cell in cells:
        watched = cell.model_dump_json(exclude={"defense", "defense_label"})
        groups.setdefault(str(run) if cell.mode == "closed" else watched, []).append((run, cell))
    return [
        Task(
            tuple(run for run, _ in group),
            tuple(cell for _, cell in group),
            folder / f"{group[0][0]}-{group[0][1].key}-{len(group)}.ckpt",
            seconds,
            record and record / _folder_name(*group[0]),
        )
        for group in groups.values()
    ]


def _folder_name(run: int, cell: Cell) -> str:
    """The folder of a task's recording: the number of its (first) run, the attack and the defense."""
    defense = cell.defense_label if cell.mode == "closed" else cell.mode
    return re.sub(r"[^\w.-]+", "_", f"{run:03d}-{cell.attack_label}-{defense}-seed{cell.seed}")


def run_task(
    task: Task,
    map: Map = map_in_order,
    after_round: AfterRound = lambda _: None,
    federate: Federate | None = None,
) -> list[CellResult]:
    """Run a task, from its last checkpoint if it has one; exceptions become the cells' error.

    Args:
        task: the task.
        map: runs independent work.
        after_round: called after every round.
        federate: makes the federation of a closed cell; the simulation's own if absent.

    Raises:
        ResultsError: the checkpoint cannot be written, which is not the cells' fault.
        WorkerError: a worker died, which is not their fault either.
    """
    try:
        with cell_device(CellKey.of(task.cells[0])):
            if task.cells[0].mode == "closed":
                return _run_closed(task, map, after_round, federate or _federation)
            return _run_shadow(task, map, after_round)
    except (ResultsError, WorkerError):
        raise
    except FedGuardError as error:
        return [CellResult(cell, error=str(error)) for cell in task.cells]
    except Exception:  # a bug in one method must not cost the other cells
        return [CellResult(cell, error=traceback.format_exc()) for cell in task.cells]


def _federation(cell: Cell, map: Map) -> Federation | FLCert:
    return FLCert(cell, map) if cell.defense.flcert else Federation(cell, map)


def _run_closed(task: Task, map: Map, after_round: AfterRound, federate: Federate) -> list[CellResult]:
    (cell,) = task.cells
    peak = PeakMemory()
    federation = federate(cell, map)
    clock, checkpoint, records = Clock(), Checkpoint(task.checkpoint, task.seconds), []
    if state := checkpoint.load():
        federation.load_state_dict(state["federation"])
        records, clock.before = load_records(state["records"]), float(state["seconds"])
        peak.before = float(state.get("peak_memory", math.nan))

    def state_now() -> State:
        return {
            "federation": federation.state_dict(),
            "records": records_state(records),
            "seconds": clock.seconds,
            "peak_memory": peak.bytes,
        }

    def after(record: RoundRecord) -> None:
        records.append(record)
        checkpoint.offer(state_now)
        after_round(record.index)

    with recording_to(task.record, federation, code_version()):
        federation.run(after, list(records))
    seconds = times(federation, records, clock.seconds)
    metrics = summarize(federation, records)
    return [CellResult(cell, metrics, records, seconds, peak_memory=peak.bytes)]


def _run_shadow(task: Task, map: Map, after_round: AfterRound) -> list[CellResult]:
    peak = PeakMemory()
    shadow = Shadow(task.cells, map)
    clock, checkpoint, done = Clock(), Checkpoint(task.checkpoint, task.seconds), 0
    if state := checkpoint.load():
        shadow.load_state_dict(state["shadow"])
        for watcher, records in zip(shadow.watchers, state["records"], strict=True):
            watcher.records = load_records(records)
        done, clock.before = int(state["done"]), float(state["seconds"])
        peak.before = float(state.get("peak_memory", math.nan))

    def after(record: RoundRecord) -> None:
        nonlocal done
        done += 1
        checkpoint.offer(
            lambda: {
                "shadow": shadow.state_dict(),
                "records": [records_state(watcher.records) for watcher in shadow.watchers],
                "done": done,
                "seconds": clock.seconds,
                "peak_memory": peak.bytes,
            }
        )
        after_round(record.index)

    with recording_to(task.record, shadow.federation, code_version()):
        shadow.run(after, done)
    return [
        CellResult(watcher.cell, error=watcher.error)
        if watcher.error
        else CellResult(
            watcher.cell,
            summarize(watcher, watcher.records),
            watcher.records,
            times(watcher, watcher.records, clock.seconds),
            peak_memory=peak.bytes,
        )
        for watcher in shadow.watchers
    ]


class Clock:
    """Measures seconds, including those before an interruption."""

    def __init__(self) -> None:
        self.before = 0.0
        self._start = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds since the start, plus those before an interruption."""
        return self.before + time.perf_counter() - self._start
