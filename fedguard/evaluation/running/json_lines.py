"""A suite as JSON lines, for scripts: one object per event, flushed at once."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, TextIO

from ...simulation.settings import Cell
from ..results.store import CellResult, Store
from ..suites.suite import Suite
from .follow import Follower


class JsonLines(Follower):
    """Events "started", "round", "run" and "ended"; numbers have full precision, undefined ones are null.

    Args:
        stream: where to write.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def started(self, suite: Suite, folder: Path, runs: int, rounds: int) -> None:
        """Write the runs and rounds that are left."""
        self._write("started", suite=suite.name, folder=str(folder), runs=runs, rounds=rounds)

    def round_done(self, cell: Cell, index: int) -> None:
        """Write one object per round."""
        self._write("round", **_about(cell), round=index)

    def run_done(self, result: CellResult) -> None:
        """Write one object per run, with its metrics, seconds by part, peak of memory, and error."""
        metrics = {name: _plain(value) for name, value in result.metrics.items()}
        status = "failed" if result.error else "done"
        about = _about(result.cell)
        costs = {"seconds": result.seconds, "peak_memory": _plain(result.peak_memory)}
        self._write("run", **about, status=status, error=result.error, metrics=metrics, **costs)

    def ended(self, store: Store, seconds: float) -> None:
        """Write how the suite ended."""
        failed = len(store.failures())
        runs = len(store.finished())
        self._write("ended", folder=str(store.folder), runs=runs, failed=failed, seconds=seconds)

    def _write(self, event: str, **fields: Any) -> None:
        self.stream.write(json.dumps({"event": event, **fields}) + "\n")
        self.stream.flush()


def _about(cell: Cell) -> dict[str, Any]:
    labels = {"attack": cell.attack_label, "defense": cell.defense_label}
    return {**labels, "mode": cell.mode, "seed": cell.seed, "point": cell.point}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
