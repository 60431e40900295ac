"""Score distributions with thresholds, a panel per attack and defense."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..report.scores import Distribution
from .grid import grid, labels, legend, log_ticks, title
from .style import Sheet


def draw(sheet: Sheet, found: Sequence[tuple[str, str, Distribution]]) -> Any:
    """Benign clients upwards, malicious ones downwards; a dashed line is the threshold.

    Args:
        sheet: what it is drawn on.
        found: attack, defense and distribution.

    Raises:
        ParameterError: no distribution, or too many.
    """
    each, rest = divmod(len(found), len({attack for attack, _, _ in found}) or 1)
    figure, axes = grid(sheet, len(found), "no finite score to draw", wide=0 if rest else each)
    for axis, (attack, defense, spread) in zip(axes, found, strict=True):
        _mirrored(sheet, axis, spread)
        title(axis, f"{attack} × {defense}", 20 + 6 * sheet.columns)
    labels(figure, "score (higher is more suspicious)", "% of the scores of its kind")
    handles, texts = axes[0].get_legend_handles_labels()
    legend(figure, dict(zip(texts, handles, strict=True)), columns=1 + sheet.columns)
    return figure


def _mirrored(sheet: Sheet, axis: Any, spread: Distribution) -> None:
    colors = sheet.colors
    axis.stairs(spread.benign, spread.edges, fill=True, color=colors.benign, alpha=0.85, label="benign ↑")
    down = [-share for share in spread.malicious]
    axis.stairs(down, spread.edges, fill=True, color=colors.malicious, alpha=0.85, label="malicious ↓")
    if spread.scale.kind == "log":
        axis.set_xscale("log")
    elif spread.scale.kind == "symlog":
        axis.set_xscale("symlog", linthresh=spread.scale.unit)
    if spread.scale.kind == "linear":
        axis.locator_params(axis="x", nbins=4)
    else:
        log_ticks(axis.xaxis, 3)
    cut = spread.cut
    axis.axvspan(cut.low, cut.high, color="gray", alpha=0.2, linewidth=0)
    axis.axvline(
        cut.middle, color=colors.ink, linestyle="--", linewidth=1.0, label="threshold (median, range)"
    )
    axis.axhline(0, color="gray", linewidth=0.6)
    axis.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
