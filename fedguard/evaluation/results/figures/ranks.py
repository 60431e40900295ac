"""The critical-difference diagram (Demšar, JMLR 7, 2006), with matplotlib (extra: plot)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..names import display_all, names_of
from ..ranks import Ranking, ranking
from ..store import Store
from ..tables import columns_named
from .style import Sheet

if TYPE_CHECKING:
    import pandas as pd


def draw(sheet: Sheet, store: Store, runs: pd.DataFrame, metric: str) -> Any:
    """The ranks of a metric.

    Raises:
        ParameterError: an unknown metric, or nothing to rank.
    """
    (column,) = columns_named([metric])
    found = ranking(runs, column)
    names = display_all(found.names, names_of(store.folder))
    figure = sheet.figure(1.3 + 0.24 * math.ceil(len(names) / 2))
    return draw_ranks(found, list(names.values()), figure, sheet.colors["ink"])


def draw_ranks(found: Ranking, names: list[str], figure: Any, ink: str) -> Any:
    """An axis of average ranks, best on the left; a bar joins what Nemenyi's test cannot tell apart."""
    k = len(names)
    half = math.ceil(k / 2)
    bars = found.groups()
    depth = 0.35 + 0.22 * len(bars)
    axis = figure.subplots()
    margin = 0.55 * (k - 1)
    axis.set(xlim=(1 - margin, k + margin), ylim=(depth + 0.5 * half + 0.1, -1.3))
    axis.set_axis_off()
    axis.plot([1, k], [0, 0], color=ink, linewidth=1)
    for tick in range(1, k + 1):
        axis.plot([tick, tick], [0, -0.12], color=ink, linewidth=1)
        axis.text(tick, -0.2, str(tick), ha="center", va="bottom", fontsize=8)
    for place, (name, rank) in enumerate(zip(names, found.ranks, strict=True)):
        left = place < half
        y = depth + 0.5 * ((place if left else k - 1 - place) + 0.5)
        edge = 1 - 0.05 * (k - 1) if left else k + 0.05 * (k - 1)
        axis.plot([rank, rank, edge], [0, y, y], color=ink, linewidth=0.8)
        text = f"{name}  {rank:.2f} " if left else f" {rank:.2f}  {name}"
        axis.text(edge, y, text, ha="right" if left else "left", va="center", fontsize=8, parse_math=False)
    for level, (first, last) in enumerate(bars):
        y = 0.2 + 0.22 * level
        ends = [found.ranks[first] - 0.03, found.ranks[last] + 0.03]
        axis.plot(ends, [y, y], color=ink, linewidth=3.5, solid_capstyle="butt")
    _scale(axis, found, k, ink)
    return figure


def _scale(axis: Any, found: Ranking, k: int, ink: str) -> None:
    """The critical difference as a length, and what was ranked."""
    end = 1 + min(found.difference, k - 1 + 0.5 * (k - 1))
    axis.plot([1, end], [-0.75, -0.75], color=ink, linewidth=1)
    for x in (1, end):
        axis.plot([x, x], [-0.67, -0.83], color=ink, linewidth=1)
    axis.text((1 + end) / 2, -0.85, f"CD = {found.difference:.2f}", ha="center", va="bottom", fontsize=8)
    p = "" if math.isnan(found.p) else f"\nFriedman p = {found.p:.2g}"
    title = f"{found.column.title.removesuffix(' %')}: average ranks over {found.blocks} {found.unit}s{p}"
    axis.set_title(title, fontsize=8)
