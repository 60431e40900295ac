"""Where points are tried: ordinary results folders, one per batch, whose labels are the points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import FedGuardError, ParameterError
from ...core.params import nearest
from ..results.store import Store
from ..running.executors import Executor
from ..running.runner import run_suite
from ..suites.check import check_suite
from ..suites.source import Source
from ..suites.suite import Suite, with_values
from .objective import Goal, Score
from .space import Axis, Choice, Range


@dataclass
class Bench:
    """Runs points of a space against the opponents of a goal.

    Attributes:
        suite: the suite that is tuned.
        goal: what is tuned, and against whom.
        folder: the folder of the search; every batch is a results folder in it.
        workers: processes.
        executor: where to run; ``workers`` processes here if absent.
        runs: how many runs each results folder holds, by its name.
        seconds: the computing time of each, added up over processes.
    """

    suite: Suite
    goal: Goal
    folder: Path
    workers: int = 1
    executor: Executor | None = None
    runs: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def judge(self, name: str, points: Mapping[str, dict[str, Any]], seeds: Sequence[int]) -> list[Score]:
        """Run points, by their labels, into the results folder ``name``, or the rest of them; score them."""
        plan = self.suite_of(points, seeds, f"{self.suite.name}-{name}")
        store = run_suite(plan, self.folder / name, self.workers, executor=self.executor)
        self.runs[name], self.seconds[name] = len(store.finished()), _seconds(store)
        return self.goal.scores(store, list(points))

    def suite_of(self, points: Mapping[str, dict[str, Any]], seeds: Sequence[int], name: str) -> Suite:
        """The suite of points against the goal's opponents."""
        goal, plain = self.goal, plain_suite(self.suite)
        plain |= {
            "name": name,
            "seeds": list(seeds),
            goal.kind: {label: entry(self.suite, goal, point) for label, point in points.items()},
            goal.opponents: {label: plain[goal.opponents][label] for label in goal.against},
        }
        return Suite(**plain)

    def cost(self, prefix: str = "") -> tuple[int, float]:
        """Runs and seconds of the results folders whose names begin like this."""
        names = [name for name in self.runs if name.startswith(prefix)]
        return sum(self.runs[n] for n in names), sum(self.seconds[n] for n in names)


def plain_suite(suite: Suite) -> dict[str, Any]:
    """A suite as plain values."""
    return suite.model_dump(mode="json", exclude={"only", "exclude", "grid"})


def entry(suite: Suite, goal: Goal, point: Mapping[str, Any]) -> Any:
    """The attack or defense that is tuned, at a point of the space."""
    return with_values(plain_suite(suite), dict(point))[goal.kind][goal.label]


def check_space(suite: Suite, source: Source, goal: Goal, axes: Sequence[Axis]) -> None:
    """Refuse what cannot be searched, before anything runs.

    Every value of a choice and both ends of a range are built, with the other axes at their middle or their
    first value.

    Raises:
        ParameterError: a path leads elsewhere, or a value is refused; the message names path and value.
    """
    home = f"{goal.kind}.{goal.label}."
    for axis in axes:
        if not axis.path.startswith(home):
            raise ParameterError(
                f"search {axis.path}: a search for {goal.kind[:-1]} {goal.label} sets {home}…"
            )
    middle = {axis.path: axis.levels(1)[0] for axis in axes}
    for axis in axes:
        for value in axis.values if isinstance(axis, Choice) else _ends(axis):
            point = {**middle, axis.path: value}
            try:
                changed = with_values(plain_suite(suite), point)
                opponents = {label: changed[goal.opponents][label] for label in goal.against}
                one = {goal.label: changed[goal.kind][goal.label]}
                plan = Suite(**{**changed, goal.kind: one, goal.opponents: opponents})
                check_suite(plan, source)
            except (FedGuardError, ValueError) as error:
                raise ParameterError(f"search {axis.path} = {value}: {error}") from None


def _ends(axis: Range) -> list[Any]:
    return axis.levels(2)


def check_labels(suite: Suite, goal: Goal) -> None:
    """Refuse labels that the suite does not have.

    Raises:
        ParameterError: names the nearest one.
    """
    for kind, labels in ((goal.kind, (goal.label,)), (goal.opponents, goal.against)):
        known = getattr(suite, kind)
        for label in labels:
            if label not in known:
                raise ParameterError(
                    f"{suite.name} has no {kind[:-1]} {label!r}{nearest(label, known)} "
                    f"(known: {', '.join(known)})"
                )
            if "." in label and kind == goal.kind:
                raise ParameterError(f"the label {label!r} has a dot, which separates keys; rename it")


def _seconds(store: Store) -> float:
    """Computing time; runs that watched the same federation shared theirs."""
    runs = store.table("runs").set_index("run")
    times = store.table("timings")
    total = times[times["part"] == "total"].set_index("run")["seconds"]
    if total.empty:
        return 0.0
    shared = runs.loc[total.index, ["mode", "attack", "seed", "defense"]].copy()
    shared.loc[shared["mode"] != "closed", "defense"] = ""
    return float(total.groupby([shared[name] for name in shared]).max().sum())
