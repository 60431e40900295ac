"""Which numbers of a table deserve to be marked as best and second best."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from .frame import run_frame
from .paired import holm, paired_test
from .store import Store
from .tables import Column, Mark, Marks, columns_named, defined, show

if TYPE_CHECKING:
    import pandas as pd

LEVEL = 0.05


class _Step(NamedTuple):
    """A value that beats the next one of its rivals."""

    row: Any
    column: str
    mark: Mark
    p: float
    group: int


def marked(store: Store, frame: pd.DataFrame, names: Sequence[str]) -> Marks:
    """The marks of a table of a store: the same ones on the terminal, in a report, in Markdown and in LaTeX.

    Args:
        store: of a results folder.
        frame: the rows that are shown, see :func:`.frame.metrics_frame`.
        names: the metrics that are shown.
    """
    runs = run_frame(store, [key for key in frame.attrs["keys"] if key in frame])
    return marks(frame, runs, defined(frame, columns_named(names)))


def marks(frame: pd.DataFrame, runs: pd.DataFrame, columns: Sequence[Column]) -> Marks:
    """The best and the second best among rivals: cells that differ in the defense only.

    A value is marked if it beats the next best one: by :func:`.paired.paired_test` over the seeds at 5 % with
    Holm's correction over all tests of the table, or where there is one seed by the digits shown. Nothing is
    marked where the best is no better than chance, or where it is equal to the next; a second only where
    there is a best.

    Args:
        frame: means over seeds, one row per cell.
        runs: one row per run, with the same keys and ``seed``.
        columns: the metrics that are shown.
    """
    keys = list(frame.attrs["keys"])
    by_seed = {tuple(key): part.set_index("seed") for key, part in runs.groupby(keys, dropna=False)}
    steps = []
    rivals = [key for key in keys if key != "defense"]
    parts = [part for _, part in frame.groupby(rivals, sort=False, dropna=False)] if rivals else [frame]
    for number, group in enumerate(parts):
        for column in columns:
            if column.best and column.name in runs:
                steps += _steps(group, number, by_seed, keys, column)
    adjusted = holm([step.p for step in steps])
    found: dict[tuple[Any, str], Mark] = {}
    firsts: set[tuple[int, str]] = set()
    for step, p in zip(steps, adjusted, strict=True):  # the best of its rivals comes before their second
        if p <= LEVEL and (step.mark == "best" or (step.group, step.column) in firsts):
            found[step.row, step.column] = step.mark
            firsts.add((step.group, step.column))
    return found


def _steps(
    group: pd.DataFrame, number: int, by_seed: dict[Any, Any], keys: list[str], column: Column
) -> list[_Step]:
    values = group[column.name].dropna()
    ranked = list(values.sort_values(ascending=column.best == "min", kind="stable").index)
    if len(ranked) < 2 or column.fails(values[ranked[0]]):
        return []
    found = []
    order: tuple[Mark, Mark] = ("best", "second")
    for mark, (row, other) in zip(order, pairwise(ranked), strict=False):
        if show(values[row], column) == show(values[other], column):
            break
        one, two = (by_seed[tuple(group.loc[r, keys])][column.name] for r in (row, other))
        differences = (one - two).dropna()
        p = _single_p(differences) if len(differences) < 2 else paired_test(differences).p
        found.append(_Step(row, column.name, mark, p, number))
    return found


def _single_p(differences: pd.Series) -> float:
    """One seed is not tested, its digits count: 0 for a difference, 1 for none."""
    return 0.0 if len(differences) and differences.iloc[0] != 0 else 1.0
