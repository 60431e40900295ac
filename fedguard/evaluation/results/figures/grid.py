"""Small multiples: panels of one size, shared labels, names at the ends of lines or in a legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ....core.errors import ParameterError
from ..report.axes import power_text
from ..report.pictures import short
from .style import Sheet

#: The most panels of a figure.
MAX_PANELS = 48
#: Up to this many lines have their names at their ends.
MAX_DIRECT = 6


def grid(sheet: Sheet, count: int, nothing: str, height: float = 1.5, wide: int = 0) -> tuple[Any, list[Any]]:
    """A figure of so many panels, and its axes.

    Args:
        sheet: what it is drawn on.
        count: of panels.
        nothing: what there is nothing of, for the error.
        height: of a row, in inches.
        wide: panels side by side, if they fit.

    Raises:
        ParameterError: no panel, or too many.
    """
    if count == 0:
        raise ParameterError(f"{nothing}: see `fedguard export`")
    if count > MAX_PANELS:
        raise ParameterError(f"{count} panels are too many for a figure; choose with --where attack=…")
    most = 2 if sheet.columns == 1 else 4
    columns = min(most, count if count <= 3 else math.ceil(math.sqrt(count)))
    columns = wide if 0 < wide <= most + 1 else columns
    rows = -(-count // columns)
    figure = sheet.figure(0.7 + height * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis in axes[count:]:
        axis.set_axis_off()
    return figure, axes[:count]


def log_ticks(axis: Any, most: int) -> None:
    """Name powers of ten on a logarithmic axis, at most so many of them."""
    axis.set_major_formatter(lambda value, _: power_text(value))
    axis.get_major_locator().set_params(numticks=most)


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


def spread(values: Sequence[float], step: float, low: float, high: float) -> list[float]:
    """The values, moved so that two are at least ``step`` apart, within low and high; their order stays.

    Example:
        >>> spread([1.0, 1.0, 5.0], 1.0, 0.0, 5.0)
        [1.0, 2.0, 5.0]
    """
    order = sorted(range(len(values)), key=lambda i: values[i])
    placed = [values[i] for i in order]
    for i, _ in enumerate(placed):
        placed[i] = max(placed[i], low if i == 0 else placed[i - 1] + step)
    for i in range(len(placed) - 1, -1, -1):
        placed[i] = min(placed[i], high if i == len(placed) - 1 else placed[i + 1] - step)
    found = [0.0] * len(values)
    for i, place in zip(order, placed, strict=True):
        found[i] = place
    return found


def legend(figure: Any, handles: Mapping[str, Any], heading: str = "", columns: int = 4) -> None:
    """Name lines above the panels."""
    figure.legend(
        list(handles.values()), list(handles), loc="outside upper center",
        ncol=max(1, min(columns, len(handles))), title=heading or None,
    )  # fmt: skip


def over(seeds: int) -> str:
    """What a number is the mean of."""
    return f"mean over {seeds} seeds" if seeds > 1 else "1 seed"


def place_names(axis: Any, points: Sequence[tuple[float, float, str, str]]) -> None:
    """Write a name beside each point of a scatter plot, where it covers the fewest others.

    Args:
        axis: with its limits and scales set.
        points: x, y, name and color.
    """
    figure = axis.figure
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    dots = [tuple(axis.transData.transform((x, y))) for x, y, _, _ in points]
    frame = axis.get_window_extent(renderer)
    taken: list[Any] = []
    for (x, y, name, color), _ in zip(points, dots, strict=True):
        best = None
        for dx, dy, ha in _BESIDE:
            text = axis.annotate(
                short(name, 18), (x, y), xytext=(dx, dy), textcoords="offset points", ha=ha, va="center",
                fontsize=6.5, color=color,
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            hits = sum(box.overlaps(other) for other in taken) * 3
            hits += sum(box.x0 < px < box.x1 and box.y0 < py < box.y1 for px, py in dots)
            hits += 5 * (box.x1 > frame.x1 + 2 or box.x0 < frame.x0 or box.y1 > frame.y1 or box.y0 < frame.y0)
            if best is None or hits < best[0]:
                if best is not None:
                    best[1].remove()
                best = (hits, text, box)
            else:
                text.remove()
            if hits == 0:
                break
        if best is not None:
            taken.append(best[2])


#: Where a name may stand beside its point, best first: shift in points, and how it is aligned.
_BESIDE = (
    *((5, 8, "left"), (5, -8, "left"), (-5, 8, "right"), (6, 0, "left"), (-6, 0, "right")),
    *((-5, -8, "right"), (5, 16, "left"), (5, -16, "left"), (-5, 16, "right"), (-5, -16, "right")),
    *((5, 24, "left"), (5, -24, "left"), (-5, 24, "right"), (-5, -24, "right")),
)
