"""Pictures with matplotlib (extra: plot), for papers: the same marks as :mod:`.svg`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from .axes import Axis
from .grid import end_labels, grid, labels, legend, title
from .picture import (
    CELL,
    CHARACTER,
    Area,
    Boxes,
    Dots,
    Key,
    Mark,
    Picture,
    Plot,
    Points,
    Stroke,
    short,
    width_of,
)
from .places import Box, beside
from .style import DASHES, SHAPES, Sheet

#: Up to so many lines have their names at their ends.
MAX_DIRECT = 6
#: The diameter of a marker in points.
MARKER = 5.0
#: Sizes of fonts in points.
LARGE, SMALL = 7.0, 6.5


def draw(sheet: Sheet, picture: Picture) -> Any:
    """The picture as a figure.

    Args:
        sheet: size and colors.
        picture: what is drawn.

    Raises:
        ParameterError: it has no plot, or too many.
    """
    figure, axes = grid(
        sheet,
        len(picture.plots),
        picture.empty,
        _row(sheet, picture),
        _across(sheet, picture),
        picture.widest,
    )
    first = picture.plots[0]
    for axis, plot in zip(axes, picture.plots, strict=True):
        if plot.y.names == first.y.names and not axis.get_subplotspec().is_first_col():
            plot = replace(plot, y=replace(plot.y, names=("",) * len(plot.y.names)))
        _plot(sheet, axis, plot, _room(sheet, picture, plot))
    if len(axes) > 1:
        labels(figure, first.x.label, first.y.label)
    else:
        axes[0].set(xlabel=first.x.label, ylabel=first.y.label)
    _explain(sheet, figure, axes, picture)
    figure.draw_without_rendering()
    for axis, plot in zip(axes, picture.plots, strict=True):
        _beside(sheet, axis, plot)
    return figure


def _across(sheet: Sheet, picture: Picture) -> int:
    square = picture.plots and picture.plots[0].square
    return min(len(picture.plots), 2 * sheet.columns) if square else picture.across


def _row(sheet: Sheet, picture: Picture) -> float:
    if picture.plots and picture.plots[0].square:
        return min(2.4, 0.92 * sheet.width / _across(sheet, picture) + 0.15)
    return picture.row


def _room(sheet: Sheet, picture: Picture, plot: Plot) -> tuple[float, float]:
    """About how wide and high the cells of named axes are, in points."""
    left = width_of(plot.y.names, LARGE) / 72 + 0.3
    wide = sheet.width / max(1, picture.across) - left - (0.5 if picture.shades else 0.0)
    wide -= 0.7 * width_of(plot.x.names[-1:], LARGE) / 72  # it is slanted, above the last column
    high = picture.row - 0.55
    return 72 * wide / max(1, len(plot.x.names)), 72 * high / max(1, len(plot.y.names))


def _explain(sheet: Sheet, figure: Any, axes: Sequence[Any], picture: Picture) -> None:
    """The title, or the legend; what shades stand for."""
    named = [mark for plot in picture.plots for mark in plot.marks if isinstance(mark, Stroke) and mark.label]
    handles = {short(key.text): _handle(sheet, key) for key in picture.keys}
    if picture.direct and len(axes) == 1 and len(named) <= MAX_DIRECT:
        figure.draw_without_rendering()
        end_labels(axes[0], [(mark.points[-1][1], mark.label, sheet.colors[mark.color]) for mark in named])
        title(axes[0], f"{short(picture.plots[0].title, 32)} ({picture.note})", 200)
    elif handles:
        legend(figure, handles, picture.note, _legend_columns(sheet, list(handles)))
    else:
        width = min(sheet.width, picture.widest or sheet.width)
        words = textwrap.wrap(f"{picture.title} ({picture.note})", int(72 * width / (LARGE * CHARACTER)))
        figure.suptitle("\n".join(words), fontsize=LARGE)
    if picture.shades:
        _scale(sheet, figure, axes, picture.shades)


def _legend_columns(sheet: Sheet, names: Sequence[str]) -> int:
    """All entries in one row if they fit, else in columns of one width."""
    wide = [width_of([name], LARGE) + 34 for name in names]
    room = 72 * sheet.width
    return len(names) if sum(wide) <= room else int(room / max(wide))


def _scale(sheet: Sheet, figure: Any, axes: Sequence[Any], ends: tuple[str, str]) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap

    bar = figure.colorbar(ScalarMappable(cmap=ListedColormap(sheet.steps)), ax=axes, pad=0.02)
    bar.set_ticks([0, 1], labels=[f"worse\n{ends[0]}", f"better\n{ends[1]}"])
    bar.ax.tick_params(length=0)
    bar.outline.set_visible(False)


# ---------------------------------------------------------------- axes


def _plot(sheet: Sheet, axis: Any, plot: Plot, room: tuple[float, float]) -> None:
    named = bool(plot.x.names or plot.y.names)
    axis.set_axisbelow(True)
    if plot.bare:
        axis.set_axis_off()
    elif not named:
        axis.grid(True)
    _ends(axis.set_xlim, plot.x)
    _ends(axis.set_ylim, plot.y)
    inches = sheet.width / axis.get_subplotspec().get_gridspec().ncols
    _ticks(axis.set_xticks, plot.x, max(2, min(5, int(2.1 * inches))), LARGE)
    _ticks(axis.set_yticks, plot.y, 5, max(4.0, min(LARGE, 0.75 * room[1])))
    if plot.x.names:
        axis.xaxis.tick_top()
        axis.tick_params(axis="x", labelrotation=45)
        for text in axis.get_xticklabels():
            text.set(ha="left", rotation_mode="anchor")
    for place, text in enumerate(axis.get_yticklabels()):
        text.set_fontweight("bold" if place in plot.y.strong else "normal")
    if named:
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
    if plot.square:
        axis.set_aspect("equal")
    if plot.title:
        title(axis, plot.title, int(72 * inches / (8 * CHARACTER)))
    for level, mark in enumerate(plot.marks):
        _mark(sheet, axis, plot, mark, 2 + 0.01 * level, room)


def _ends(limit: Any, axis: Axis) -> None:
    limit(*axis.scale.forward(_array([axis.low, axis.high])))


def _ticks(put: Any, axis: Axis, most: int, size: float) -> None:
    found = axis.ticks(most)
    places = axis.scale.forward(_array([value for value, _ in found]))
    put(places, [short(text) for _, text in found], fontsize=size)


def _array(values: Sequence[float]) -> Any:
    import numpy as np

    return np.array(values, dtype=float)


def _places(plot: Plot, points: Points) -> tuple[Any, Any]:
    """Values to the places of linear axes."""
    x, y = _array([a for a, _ in points]), _array([b for _, b in points])
    return plot.x.scale.forward(x), plot.y.scale.forward(y)


# ---------------------------------------------------------------- marks


def _mark(sheet: Sheet, axis: Any, plot: Plot, mark: Mark, level: float, room: tuple[float, float]) -> None:
    if isinstance(mark, Stroke):
        axis.plot(
            *_places(plot, mark.points), label=mark.label or "_", zorder=level, clip_on=False,
            **_stroke(sheet, mark),
        )  # fmt: skip
    elif isinstance(mark, Area):
        axis.fill(*_places(plot, mark.points), zorder=level, **_area(sheet, mark))
    elif isinstance(mark, Boxes):
        _boxes(sheet, axis, plot, mark, level, room)
    elif isinstance(mark, Dots):
        unit = CELL * min(room) if plot.x.names else MARKER
        axis.plot(
            *_places(plot, mark.points), zorder=level, label=mark.label or "_", clip_on=False,
            **_dots(sheet, mark, unit),
        )  # fmt: skip
    else:
        (x,), (y,) = _places(plot, [(mark.x, mark.y)])
        size = min(SMALL, room[0] / 3.4) if plot.x.names else LARGE if plot.bare else SMALL
        words = f" {mark.text}" if mark.right else f"{mark.text} " if mark.left else mark.text
        axis.text(
            x, y, words, ha="left" if mark.right else "right" if mark.left else "center",
            va="center", fontsize=size, color=sheet.colors[mark.color], zorder=level,
        )  # fmt: skip


def _stroke(sheet: Sheet, mark: Stroke) -> dict[str, Any]:
    dash = DASHES[mark.dash]
    style = (0, dash) if dash else "-"
    wide = 0.8 if mark.thin or mark.color == "other" else 1.4
    return {"color": sheet.colors[mark.color], "linestyle": style, "linewidth": wide}


def _area(sheet: Sheet, mark: Area) -> dict[str, Any]:
    return {"color": sheet.colors[mark.color], "alpha": 0.18, "linewidth": 0}


def _dots(sheet: Sheet, mark: Dots, unit: float) -> dict[str, Any]:
    color, shape = sheet.colors[mark.color], SHAPES[mark.shape]
    return {
        "marker": [*shape, shape[0]] if shape else "o",
        "markersize": unit * mark.size,
        "linestyle": "",
        "color": color,
        "markerfacecolor": color if mark.filled else sheet.colors["paper"],
        "markeredgewidth": 0.0 if mark.filled and mark.size < 0.6 else 1.0,
    }


def _boxes(sheet: Sheet, axis: Any, plot: Plot, mark: Boxes, level: float, room: tuple[float, float]) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    corners, codes = [], []
    for x0, y0, x1, y1 in mark.boxes:
        x, y = _places(plot, [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)])
        corners += list(zip(x, y, strict=True))
        codes += [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
    if corners:
        axis.add_patch(PathPatch(Path(corners, codes), zorder=level, **_fill(sheet, mark)))
    if mark.text:
        (x0, y0), (x1, y1) = corners[0], corners[2]
        axis.text(
            (x0 + x1) / 2, (y0 + y1) / 2, mark.text, ha="center", va="center", zorder=level,
            fontsize=max(3.0, min(LARGE, room[0] / 3.2)), color=sheet.colors[mark.ink],
        )  # fmt: skip


def _fill(sheet: Sheet, mark: Boxes) -> dict[str, Any]:
    if mark.striped:
        color, paper = sheet.colors[mark.color], sheet.colors["paper"]
        return {"facecolor": paper, "edgecolor": color, "hatch": "//////", "linewidth": 0}
    if mark.color:
        return {"facecolor": sheet.colors[mark.color], "linewidth": 0}
    return {"facecolor": "none", "edgecolor": sheet.colors["rule"], "linewidth": 0.6, "linestyle": ":"}


def _handle(sheet: Sheet, key: Key) -> Any:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    if isinstance(key.mark, Stroke):
        return Line2D([], [], **_stroke(sheet, key.mark))
    if isinstance(key.mark, Dots):
        return Line2D([], [], **_dots(sheet, key.mark, MARKER))
    if isinstance(key.mark, Area):
        return Patch(**_area(sheet, key.mark))
    if isinstance(key.mark, Boxes):
        edge = {} if key.mark.striped else {"edgecolor": sheet.colors["rule"], "linewidth": 0.6}
        return Patch(**{**_fill(sheet, key.mark), **edge})
    return Line2D([], [], linestyle="")


def _beside(sheet: Sheet, axis: Any, plot: Plot) -> None:
    """The names of single dots, where they cover little."""
    marks = [mark for mark in plot.marks if isinstance(mark, Dots) and mark.name]
    if not marks:
        return
    inch = 72 / axis.figure.dpi
    places = [axis.transData.transform([p[0] for p in _places(plot, mark.points)]) * inch for mark in marks]
    edges = axis.get_window_extent()
    frame = Box(edges.x0 * inch, edges.y0 * inch, edges.x1 * inch, edges.y1 * inch)
    found = beside([(x, y) for x, y in places], [mark.name for mark in marks], SMALL, frame)
    for mark, place in zip(marks, found, strict=True):
        axis.annotate(
            short(mark.name), [p[0] for p in _places(plot, mark.points)], xytext=(place.x, place.y),
            textcoords="offset points", ha="left" if place.right else "right", va="center", fontsize=SMALL,
            annotation_clip=False,
        )  # fmt: skip
