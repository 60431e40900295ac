"""Average ranks of defenses, Friedman's test, and Nemenyi's critical difference (Demšar, JMLR 7, 2006)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...core.errors import ParameterError
from .tables import Column

if TYPE_CHECKING:
    import pandas as pd

#: Values closer than this are the same rank.
_TIE = 9


class Ranking(NamedTuple):
    """Average ranks over blocks.

    Attributes:
        column: the metric.
        names: the defenses, best first.
        ranks: their average ranks; 1 is best, ties share the mean of their ranks.
        blocks: how many blocks were ranked.
        unit: what a block is: "attack" (a mean over seeds at one point of the grid) or "seed".
        p: of Friedman's test that all are alike (scipy, corrected for ties); NaN for two defenses.
        difference: Nemenyi's critical difference q √(k(k+1)/(6N)) at 5 %.
    """

    column: Column
    names: list[str]
    ranks: list[float]
    blocks: int
    unit: str
    p: float
    difference: float

    def groups(self) -> list[tuple[int, int]]:
        """The largest runs of defenses (first, last) whose ranks differ by less than the difference.

        Example:
            >>> from fedguard.evaluation.results.tables import COLUMNS
            >>> Ranking(COLUMNS["dacc"], ["a", "b", "c"], [1.0, 1.8, 2.7], 9, "seed", 0.01, 1.0).groups()
            [(0, 1), (1, 2)]
        """
        found: list[tuple[int, int]] = []
        for first, rank in enumerate(self.ranks):
            last = max(i for i, other in enumerate(self.ranks) if other - rank < self.difference)
            if last > first and (not found or last > found[-1][1]):
                found.append((first, last))
        return found


def ranking(runs: pd.DataFrame, column: Column) -> Ranking:
    """Rank the defenses in every block of a suite, and average.

    Blocks have to be independent of each other. Attacks at points of the grid are the blocks, with means over
    seeds; where there is one only, its seeds are. Defenses without the metric, and blocks in which one of the
    others has none, are left out.

    Args:
        runs: one row per run: point, mode, attack, defense, seed and the metric.
        column: a metric with a better and a worse.

    Raises:
        ParameterError: the metric has no better, or fewer than two defenses or blocks are left.
    """
    if not column.best:
        raise ParameterError(f"{column.name} has no better or worse, so that nothing can be ranked by it")
    table = blocks_of(runs, column.name)
    if table.shape[1] < 2 or len(table) < 2:
        raise ParameterError(
            f"ranks by {column.name} need two defenses and two blocks (attacks, points of the grid or "
            f"seeds) with that metric; there are {table.shape[1]} and {len(table)}"
        )
    sign = 1.0 if column.best == "min" else -1.0
    values = (sign * table.to_numpy(dtype=float)).round(_TIE)
    ranks = average_ranks(values)
    order = sorted(range(len(ranks)), key=lambda place: ranks[place])
    names = [str(name) for name in table.columns]
    n, k = values.shape
    return Ranking(
        column,
        [names[place] for place in order],
        [ranks[place] for place in order],
        n,
        str(table.index.name),
        friedman(values),
        critical_difference(k, n),
    )


def blocks_of(runs: pd.DataFrame, name: str) -> pd.DataFrame:
    """(N, k) a metric by block and defense, in the suite's order, without gaps."""
    places = runs[["point", "mode", "attack"]].drop_duplicates()
    unit = "attack" if len(places) > 1 else "seed"
    keys = ["point", "mode", "attack"] if unit == "attack" else ["seed"]
    means = runs.groupby([*keys, "defense"], sort=False, dropna=False)[name].mean()
    table: pd.DataFrame = means.unstack("defense")[list(dict.fromkeys(runs["defense"]))]
    table = table.dropna(axis=1, how="all").dropna(axis=0, how="any")
    table.index = table.index.map(str)
    table.index.name = unit
    return table


def average_ranks(values: NDArray[np.float64]) -> list[float]:
    """(k,) mean ranks of the columns over the rows of (N, k); the smallest value has rank 1."""
    from scipy.stats import rankdata

    return [float(rank) for rank in rankdata(values, axis=1).mean(axis=0)]


def friedman(values: NDArray[np.float64]) -> float:
    """The p of Friedman's test for (N, k); NaN for fewer than three columns, 1 if all are tied."""
    from scipy.stats import friedmanchisquare

    if values.shape[1] < 3:
        return math.nan
    if (np.ptp(values, axis=1) == 0).all():
        return 1.0
    return float(friedmanchisquare(*values.T).pvalue)


def critical_difference(k: int, n: int, level: float = 0.05) -> float:
    """Nemenyi's q_α √(k(k+1)/(6n)); q_α is the studentized range of k groups over √2."""
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - level, k, math.inf)) / math.sqrt(2)
    return q * math.sqrt(k * (k + 1) / (6 * n))


def ranking_lines(found: Sequence[Ranking], called: Mapping[str, str]) -> list[str]:
    """A line per metric, for a terminal."""
    lines = []
    for one in found:
        order = ", ".join(
            f"{called[name]} {rank:.2f}" for name, rank in zip(one.names, one.ranks, strict=True)
        )
        p = "" if math.isnan(one.p) else f", Friedman p = {one.p:.3g}"
        lines.append(
            f"{one.column.title.removesuffix(' %')}, average ranks over {one.blocks} {one.unit}s: {order}; "
            f"critical difference {one.difference:.2f}{p}"
        )
    return lines
