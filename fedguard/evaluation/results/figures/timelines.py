"""Who was flagged or excluded when, a panel per attack and defense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..report.pictures import short
from ..report.timeline import STATES, Timeline
from .grid import grid, labels, legend, title
from .style import Sheet

#: The states as colors: absent, passed, flagged, banned.
_LIGHT = ("#ffffff", "#e3e7ea", "#e8803a", "#23272d")
_DARK = ("#14171b", "#2e353d", "#e8803a", "#f2f3f4")
_WORDS = ("not asked", "let through", "flagged", "banned")


def draw(sheet: Sheet, found: Sequence[tuple[str, str, Timeline]]) -> Any:
    """A row per client (malicious ones first, in bold), a column per round; a dot where it attacked.

    Args:
        sheet: what it is drawn on.
        found: attack, defense and timeline.

    Raises:
        ParameterError: no timeline, or too many.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    most = max((len(timeline.rows) for _, _, timeline in found), default=0)
    each, rest = divmod(len(found), len({attack for attack, _, _ in found}) or 1)
    height = 0.5 + 0.1 * max(most, 8)
    figure, axes = grid(sheet, len(found), "no verdict to draw", height, 0 if rest else each)
    colors = _DARK if sheet.dark else _LIGHT
    for axis, (attack, defense, timeline) in zip(axes, found, strict=True):
        _panel(sheet, axis, timeline, colors)
        title(axis, f"{attack} × {defense}", 20 + 6 * sheet.columns)
    labels(figure, "round", "client")
    handles: dict[str, Any] = {
        text: Patch(facecolor=color, edgecolor=sheet.colors.soft)
        for text, color in zip(_WORDS, colors, strict=True)
    }
    handles["attacked"] = Line2D([], [], linestyle="", marker="o", markersize=2.5, color=sheet.colors.ink)
    legend(figure, handles, f"seed {found[0][2].seed}; malicious clients in bold", 1 + 2 * sheet.columns)
    return figure


def _panel(sheet: Sheet, axis: Any, timeline: Timeline, colors: Sequence[str]) -> None:
    from matplotlib.colors import ListedColormap

    values = [[STATES.index(state) for state in row.states] for row in timeline.rows]
    n = len(values)
    edges = [0.5 + i for i in range(timeline.rounds + 1)]
    axis.pcolormesh(
        edges, range(n + 1), values, cmap=ListedColormap(colors), vmin=-0.5, vmax=3.5,
        edgecolors=sheet.colors.paper, linewidth=0.6,
    )  # fmt: skip
    for i, row in enumerate(timeline.rows):
        struck = [j for j in row.attacks if row.states[j] == "banned"]
        free = [j for j in row.attacks if row.states[j] != "banned"]
        for places, color in ((free, sheet.colors.ink), (struck, sheet.colors.paper)):
            axis.plot([j + 1 for j in places], [i + 0.5] * len(places), "o", markersize=1.8, color=color)
    axis.set_yticks([i + 0.5 for i in range(n)], [short(row.name, 10) for row in timeline.rows], fontsize=5)
    for text, row in zip(axis.get_yticklabels(), timeline.rows, strict=True):
        if row.malicious:
            text.set_fontweight("bold")
    axis.set_ylim(n, 0)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.xaxis.get_major_locator().set_params(integer=True)
