"""The confusion matrix over rounds, a panel per attack and defense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .grid import grid, labels, legend, title
from .picture import over
from .style import BENIGN, MALICIOUS, Sheet

if TYPE_CHECKING:
    import pandas as pd

#: From below: what is drawn, and whether it is malicious and suspect.
KINDS = (
    ("malicious, caught", True, True),
    ("malicious, missed", True, False),
    ("benign, accused", False, True),
    ("benign, let through", False, False),
)


def shares(table: pd.DataFrame) -> pd.DataFrame:
    """Percent of a round's participants by kind; rounds from 1 as rows, means over runs.

    A banned client that stays away does not take part.

    Args:
        table: rows of ``clients`` of one attack and defense.
    """
    import pandas as pd

    here = table[table["participated"] == 1]
    bad, suspect = here["malicious"].astype(bool), here["suspect"].astype(bool)
    flags = pd.DataFrame({name: (bad == m) & (suspect == s) for name, m, s in KINDS})
    by_run = flags.groupby([here["run"], here["round"] + 1]).mean() * 100
    found: pd.DataFrame = by_run.groupby(level=1).mean()
    return found


def draw(sheet: Sheet, found: Sequence[tuple[str, str, pd.DataFrame]], seeds: int) -> Any:
    """Stacked bars: malicious clients caught and missed, benign ones accused and let through.

    Args:
        sheet: what it is drawn on.
        found: attack, defense and :func:`shares`.
        seeds: over which they are means.

    Raises:
        ParameterError: nothing to draw, or too much.
    """
    from matplotlib.patches import Patch

    each, rest = divmod(len(found), len({attack for attack, _, _ in found}) or 1)
    figure, axes = grid(sheet, len(found), "no verdict to draw", 1.25, 0 if rest else each)
    fills = _fills(sheet)
    for axis, (attack, defense, table) in zip(axes, found, strict=True):
        floor = 0.0 * table[KINDS[0][0]]
        for name, _, _ in KINDS:
            axis.bar(table.index, table[name], bottom=floor, width=1.0, label=name, **fills[name])
            floor = floor + table[name]
        axis.set(ylim=(0, 100), xlim=(table.index.min() - 0.5, table.index.max() + 0.5))
        axis.xaxis.get_major_locator().set_params(integer=True)
        title(axis, f"{attack} × {defense}", 20 + 6 * sheet.columns)
    labels(figure, "round", "% of the round's clients")
    handles = {name: Patch(**fills[name]) for name, _, _ in KINDS}
    legend(figure, handles, over(seeds), 2 if sheet.columns == 1 else 4)
    return figure


def _fills(sheet: Sheet) -> dict[str, dict[str, Any]]:
    """Full color where the verdict is right, hatched where it is wrong."""
    colors = sheet.colors
    edge = {"linewidth": 0.0}
    wrong = {"hatch": "//////", "facecolor": colors["paper"], "linewidth": 0.0}
    return {
        KINDS[0][0]: {"facecolor": colors[MALICIOUS], **edge},
        KINDS[1][0]: {**wrong, "edgecolor": colors[MALICIOUS]},
        KINDS[2][0]: {**wrong, "edgecolor": colors[BENIGN]},
        KINDS[3][0]: {"facecolor": colors["rule"], **edge},
    }
