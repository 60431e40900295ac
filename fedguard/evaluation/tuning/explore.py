"""The search itself: Optuna proposes points, batch by batch, and a judge scores them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ...core.seeds import derive, numpy_generator
from .objective import Goal, Score
from .space import MOST, Axis

#: Scores the points of one batch: its number and the points by their trial's number, in that order.
Judge = Callable[[int, dict[int, dict[str, Any]]], list[Score]]
#: Optuna's samplers by our names.
SAMPLERS = {"tpe": "TPESampler", "gp": "GPSampler"}
#: Called after every trial.
OnTrial = Callable[["Tried"], None]


@dataclass(frozen=True)
class Proposals:
    """How points are proposed.

    Attributes:
        trials: how many.
        batch: how many at a time, to run side by side.
        sampler: "tpe", a tree-structured Parzen estimator; or "gp", a Gaussian process, which needs fewer
            trials and about a second for each.
        seed: of the proposals.
    """

    trials: int = 20
    batch: int = 4
    sampler: str = "tpe"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ParameterError: no trials, too many, or an unknown sampler.
        """
        if self.trials < 1 or self.batch < 1 or self.trials > MOST:
            most = f"both are at least 1, trials {MOST} at most"
            raise ParameterError(f"trials is {self.trials} and batch {self.batch}; {most}")
        if self.sampler not in SAMPLERS:
            raise ParameterError(f"unknown sampler {self.sampler!r}; use {' or '.join(SAMPLERS)}")

    @property
    def first(self) -> int:
        """How many come from a Latin hypercube: a third, at least 4, at most 10."""
        return min(self.trials, max(4, min(10, self.trials // 3)))


@dataclass(frozen=True)
class Tried:
    """A trial of a search.

    Attributes:
        number: its number, from 0.
        point: key path → value.
        score: what it came to.
        repeats: the number of the earlier trial with the same point, whose runs count for both; or None.
    """

    number: int
    point: dict[str, Any]
    score: Score
    repeats: int | None = None


def explore(
    axes: Sequence[Axis],
    goal: Goal,
    judge: Judge,
    how: Proposals,
    journal: Path | None = None,
    on_trial: OnTrial = lambda _: None,
) -> list[Tried]:
    """Try points that Optuna proposes, and return every trial.

    The first m trials are a Latin hypercube: each takes another one of m equal parts of every axis, and a
    random place in it.

    Trial k has a sampler of its own, seeded by the seed and k. Its point depends on the results of earlier
    batches and on the points before it in its batch, not on the time, the machine or the number of workers.
    A search that starts again with the same results therefore proposes the same points. A point that was
    proposed before is not run again.

    Args:
        axes: the space.
        goal: what is better, and what is allowed.
        judge: scores a batch.
        how: how many, and how they are proposed.
        journal: Optuna's journal file of the study, for its dashboard; written anew.
        on_trial: called after every trial.

    Raises:
        ParameterError: Optuna is not installed.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Watanabe, 2023
        (constraints); McKay et al., Technometrics 1979 (Latin hypercubes).
    """
    optuna = extra_module("optuna", "tune", "fedguard tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="fedguard",
        storage=_storage(journal),
        direction="minimize" if goal.minimize else "maximize",
    )
    for place in _places(len(axes), how.first, how.seed):
        study.enqueue_trial({axis.path: axis.at(u) for axis, u in zip(axes, place, strict=True)})
    make = getattr(optuna.samplers, SAMPLERS[how.sampler])
    done: list[Tried] = []
    for start in range(0, how.trials, how.batch):
        asked = []
        for k in range(start, min(start + how.batch, how.trials)):
            study.sampler = make(seed=derive(how.seed, "tune", k) % 2**32, n_startup_trials=how.first)
            trial = study.ask()
            asked.append((k, trial, {axis.path: axis.suggest(trial) for axis in axes}))
        first = {_key(tried.point): tried.number for tried in reversed(done)}
        new: dict[int, dict[str, Any]] = {}
        for k, _, point in asked:
            if _key(point) not in first:
                first[_key(point)], new[k] = k, point
        scores = {tried.number: tried.score for tried in done}
        scores |= dict(zip(new, judge(start // how.batch, new) if new else [], strict=True))
        for k, trial, point in asked:
            origin = first[_key(point)]
            done.append(Tried(k, point, scores[origin], None if origin == k else origin))
            _tell(optuna, study, trial, goal, scores[origin])
            on_trial(done[-1])
    return done


def _storage(journal: Path | None) -> Any:
    if journal is None:
        return None
    storages = extra_module("optuna.storages.journal", "tune", "fedguard tune")
    journal.unlink(missing_ok=True)
    return storages.JournalStorage(storages.JournalFileBackend(str(journal)))


def _places(axes: int, count: int, seed: int) -> list[list[float]]:
    """A Latin hypercube: ``count`` places in [0, 1)^axes."""
    columns = []
    for i in range(axes):
        random = numpy_generator(seed, "tune start", i)
        columns.append((random.permutation(count) + random.random(count)) / count)
    return [[float(column[k]) for column in columns] for k in range(count)]


def _tell(optuna: Any, study: Any, trial: Any, goal: Goal, score: Score) -> None:
    if score.error or score.value != score.value:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    trial.set_constraint("tolerance", goal.violation(score))
    trial.set_user_attr("opponent", score.opponent)
    study.tell(trial, score.value)


def _key(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True, default=str)
