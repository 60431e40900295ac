"""The confusion matrix over rounds, a plot per attack and defense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .axes import Axis
from .picture import Boxes, Key, Picture, Plot, over, side_by_side
from .style import BENIGN, MALICIOUS

if TYPE_CHECKING:
    import pandas as pd

#: From below: what is drawn, and whether it is malicious and suspect.
KINDS = (
    ("malicious, caught", True, True),
    ("malicious, missed", True, False),
    ("benign, accused", False, True),
    ("benign, let through", False, False),
)
#: Full color where the verdict is right, striped where it is wrong.
_LOOKS = ((MALICIOUS, False), (MALICIOUS, True), (BENIGN, True), ("rule", False))


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


def confusion(found: Sequence[tuple[str, str, pd.DataFrame]], seeds: int) -> Picture:
    """Stacked bars: malicious clients caught and missed, benign ones accused and let through.

    Args:
        found: attack, defense and :func:`shares`.
        seeds: over which they are means.
    """
    plots = [_plot(attack, defense, table) for attack, defense, table in found if len(table)]
    keys = [
        Key(name, Boxes((), color, striped=striped))
        for (name, _, _), (color, striped) in zip(KINDS, _LOOKS, strict=True)
    ]
    across = side_by_side([attack for attack, _, _ in found])
    return Picture(
        "Verdicts by round", plots, "no verdict to draw", over(seeds), keys, row=1.25, across=across
    )


def _plot(attack: str, defense: str, table: pd.DataFrame) -> Plot:
    rounds = [float(number) for number in table.index]
    tops = table[[name for name, _, _ in KINDS]].cumsum(axis=1)
    marks, floor = [], [0.0] * len(rounds)
    for (name, _, _), (color, striped) in zip(KINDS, _LOOKS, strict=True):
        top = [float(value) for value in tops[name]]
        bars = [
            (at - 0.5, low, at + 0.5, high)
            for at, low, high in zip(rounds, floor, top, strict=True)
            if high > low
        ]
        if bars:
            label = f"{name}: {table[name].mean():.1f} % on average"
            marks.append(Boxes(bars, color, label, striped=striped))
        floor = top
    x = Axis("round", rounds[0] - 0.5, rounds[-1] + 0.5, whole=True)
    means = ", ".join(f"{name} {table[name].mean():.1f} %" for name, _, _ in KINDS)
    alt = f"Verdicts of {defense} under {attack} by round, on average: {means}"
    y = Axis("% of the round's clients", 0.0, 100.0)
    return Plot(f"{attack} × {defense}", x, y, marks, alt, (300.0, 150.0))
