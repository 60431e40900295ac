"""Small multiples: panels of one size, shared labels, names at the ends of lines or in a legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ....core.errors import ParameterError
from .picture import short
from .places import spread
from .style import Sheet

#: The most panels of a figure.
MAX_PANELS = 48


def grid(
    sheet: Sheet, count: int, nothing: str, height: float = 1.5, wide: int = 0, most: float = 0.0
) -> tuple[Any, list[Any]]:
    """A figure of so many panels, and its axes.

    Args:
        sheet: what it is drawn on.
        count: of panels.
        nothing: why there is no panel, for the error.
        height: of a row, in inches.
        wide: panels side by side, if they fit.
        most: of the width, in inches; the whole sheet if 0.

    Raises:
        ParameterError: no panel, or too many.
    """
    if count == 0:
        raise ParameterError(f"{nothing}: see `fedguard export`")
    if count > MAX_PANELS:
        raise ParameterError(f"{count} panels are too many for a figure; choose with --where attack=…")
    fit = 2 if sheet.columns == 1 else 4
    columns = min(fit, count if count <= 3 else math.ceil(math.sqrt(count)))
    columns = wide if 0 < wide <= fit + 1 else columns
    rows = -(-count // columns)
    figure = sheet.figure(0.7 + height * rows, min(sheet.width, most or sheet.width))
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def labels(figure: Any, x: str, y: str) -> None:
    """Name the axes once for all panels."""
    figure.supxlabel(x, fontsize=8)
    figure.supylabel(y, fontsize=8)


def title(axis: Any, text: str, limit: int = 32) -> None:
    """Name a panel."""
    axis.set_title(short(text, limit), fontsize=8)


def end_labels(axis: Any, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write names right of the axis, at the heights where their lines end, moved apart if need be.

    Args:
        axis: with its limits set.
        ends: value, name and color.
    """
    low, high = axis.get_ylim()
    bounds = axis.get_window_extent().height * 72 / axis.figure.dpi
    step = min(8.5 * (high - low) / max(bounds, 1.0), (high - low) / max(1, len(ends)))
    places = spread([value for value, _, _ in ends], step, low, high)
    for place, (_, name, color) in zip(places, ends, strict=True):
        axis.annotate(
            short(name, 16), (1.0, place), xycoords=("axes fraction", "data"), xytext=(3, 0),
            textcoords="offset points", va="center", fontsize=6.5, color=color, annotation_clip=False,
        )  # fmt: skip


def legend(figure: Any, handles: Mapping[str, Any], heading: str = "", columns: int = 4) -> None:
    """Name lines above the panels."""
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper center",
        ncol=max(1, min(columns, len(handles))), title=heading or None,
    )  # fmt: skip
