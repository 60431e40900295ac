"""The outcome of a search."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..suites.suite import Suite
from .explore import Proposals, Tried
from .objective import Goal, Score
from .space import Axis

#: The names of the files of a search.
JOURNAL, FOUND, TRIALS = "study.journal", "found.yaml", "trials.csv"


@dataclass(frozen=True)
class Check:
    """What was found, checked on seeds that nobody tuned on.

    Attributes:
        name: "as written" (the suite's own parameters), "grid" or "search".
        point: the parameters: key path → value; empty as written.
        tuned: the score on the tuning seeds; None if it was not measured there.
        tested: the score on the test seeds.
    """

    name: str
    point: dict[str, Any]
    tuned: Score | None
    tested: Score


@dataclass(frozen=True)
class Tuned:
    """The outcome of a search.

    Attributes:
        suite: the suite that was searched.
        goal: what was searched.
        axes: the space.
        seeds: the tuning seeds.
        test_seeds: the seeds of the check; none of them is a tuning seed.
        trials: every trial.
        best: the best trial that is allowed; None if there is none, and then there are no checks.
        checks: "as written", "grid" (None without an allowed point) and "search" on the test seeds.
        grid_size: how many points the grid has.
        runs: what was run: "search", "grid" and "test" → runs and seconds of computing.
        folder: the folder of the search.
        how: how the points were proposed.
    """

    suite: Suite
    goal: Goal
    axes: tuple[Axis, ...]
    seeds: tuple[int, ...]
    test_seeds: tuple[int, ...]
    trials: tuple[Tried, ...]
    best: Tried | None
    checks: tuple[Check, ...]
    grid_size: int
    runs: dict[str, tuple[int, float]]
    folder: Path
    how: Proposals

    @property
    def point(self) -> dict[str, Any]:
        """The parameters that the search found: key path → value; empty if it found none."""
        return dict(self.best.point) if self.best else {}

    @property
    def found(self) -> Path:
        """The suite with these parameters and the test seeds; there is none if nothing was found."""
        return self.folder / FOUND
