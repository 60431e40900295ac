"""The times of runs that are finished, from results folders."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ...core.errors import ResultsError
from ...simulation.settings import Cell
from ..results.store import Store
from .costs import Kind, Part, Timed

if TYPE_CHECKING:
    import pandas as pd


def stored_times(folder: Path) -> list[Timed]:
    """What the finished runs of a results folder cost; none if it holds none, or is not readable."""
    try:
        store = Store(folder)
        runs, timings = store.table("runs"), store.table("timings")
    except ResultsError:
        return []
    return list(_timed(runs[runs["status"] == "done"], timings))


def _timed(runs: pd.DataFrame, timings: pd.DataFrame) -> Iterator[Timed]:
    parts: dict[int, dict[str, float]] = {}
    for run, part, seconds in timings[["run", "part", "seconds"]].itertuples(index=False):
        parts.setdefault(int(run), {})[part] = float(seconds)
    for run, settings in runs[["run", "settings"]].itertuples(index=False):
        try:
            cell = Cell.model_validate_json(settings)
        except ValidationError:  # of a version with other settings
            continue
        if int(run) in parts:
            yield _one(cell, parts[int(run)])


def _one(cell: Cell, seconds: dict[str, Any]) -> Timed:
    judging = sum(seconds.get(part, 0.0) for part in ("detectors", "policy", "aggregator"))
    # The total of a run that only watches is that of all that watch with it.
    work = seconds["total"] - judging if cell.mode == "closed" else seconds["training"]
    each = [max(0.0, part) / cell.rounds for part in (work, judging)]
    return Timed(Kind.of(cell), *(Part(one, one) for one in each))
