"""The search itself: Optuna proposes points, batch by batch, and a judge scores them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.extras import extra_module
from ...core.seeds import derive
from .objective import Goal, Score
from .space import Axis

#: Scores the points of one batch: its number and the points by their trial's number, in that order.
Judge = Callable[[int, dict[int, dict[str, Any]]], list[Score]]
#: Called after every trial.
OnTrial = Callable[["Tried"], None]


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
    trials: int,
    batch: int,
    seed: int,
    journal: Path | None = None,
    on_trial: OnTrial = lambda _: None,
) -> list[Tried]:
    """Try points proposed by Optuna's tree-structured Parzen estimator (TPE), and return every trial.

    Trial k has a sampler of its own, seeded by ``seed`` and k. Its point depends on the results of earlier
    batches and on the points before it in its batch, not on the time, the machine or the number of workers.
    A search that starts again with the same results therefore proposes the same points. A point that was
    proposed before is not run again.

    Args:
        axes: the space.
        goal: what is better, and what is allowed.
        judge: scores a batch.
        trials: how many trials.
        batch: how many are proposed at a time, to run side by side.
        seed: of the proposals.
        journal: Optuna's journal file of the study, for its dashboard; written anew.
        on_trial: called after every trial.

    Raises:
        ParameterError: Optuna is not installed.

    Source: Bergstra et al., Algorithms for Hyper-Parameter Optimization, NeurIPS 2011; Watanabe, 2023
        (constraints).
    """
    optuna = extra_module("optuna", "tune", "fedguard tune")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="fedguard",
        storage=_storage(journal),
        direction="minimize" if goal.minimize else "maximize",
    )
    done: list[Tried] = []
    for start in range(0, trials, batch):
        asked = []
        for k in range(start, min(start + batch, trials)):
            study.sampler = _sampler(optuna, trials, derive(seed, "tune", k))
            trial = study.ask()
            asked.append((k, trial, {axis.path: axis.suggest(trial) for axis in axes}))
        first = {_key(tried.point): tried.number for tried in reversed(done)}
        new: dict[int, dict[str, Any]] = {}
        for k, _, point in asked:
            if _key(point) not in first:
                first[_key(point)], new[k] = k, point
        scores = {tried.number: tried.score for tried in done}
        scores |= dict(zip(new, judge(start // batch, new) if new else [], strict=True))
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


def _sampler(optuna: Any, trials: int, seed: int) -> Any:
    """TPE after a third of the trials, at least 4 and at most 10, were drawn at random."""
    return optuna.samplers.TPESampler(seed=seed % 2**32, n_startup_trials=max(4, min(10, trials // 3)))


def _tell(optuna: Any, study: Any, trial: Any, goal: Goal, score: Score) -> None:
    if score.error or score.value != score.value:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
        return
    trial.set_constraint("tolerance", goal.violation(score))
    trial.set_user_attr("opponent", score.opponent)
    study.tell(trial, score.value)


def _key(point: dict[str, Any]) -> str:
    return json.dumps(point, sort_keys=True, default=str)
