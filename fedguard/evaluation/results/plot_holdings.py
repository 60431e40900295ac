"""A figure of who has what, with matplotlib (extra: plot)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ..suites.holdings import Holdings
from .figures.saved import check_format, save
from .figures.style import BENIGN, MALICIOUS, Sheet

#: Ten colors that stay apart with any kind of color vision: Paul Tol's muted scheme; on a dark ground his
#: light scheme and a violet.
CLASSES = {
    False: (
        *("#332288", "#88ccee", "#44aa99", "#117733", "#999933"),
        *("#ddcc77", "#cc6677", "#882255", "#aa4499", "#bbbbbb"),
    ),
    True: (
        *("#77aadd", "#99ddff", "#44bb99", "#bbcc33", "#aaaa00"),
        *("#eedd88", "#ee8866", "#ffaabb", "#a48ad0", "#dddddd"),
    ),
}
#: From one sample to the most.
BLUES = {False: ("#a9cfe8", "#2f8fce", "#06213d"), True: ("#263f55", "#2b73a9", "#cfe8ff")}
#: More clients than this do not get a number each, nor more classes a name each.
MOST_NUMBERED = 40


def plot_holdings(
    found: Holdings, out: Path, show_malicious: bool = False, sheet: Sheet | None = None
) -> Path:
    """Draw one bar per client, in the colors of its classes; with more than ten classes a heat map.

    Args:
        found: who has what.
        out: the file, .png, .svg or .pdf.
        show_malicious: mark the malicious clients.
        sheet: size and colors; two columns on white if absent.

    Raises:
        ParameterError: an unknown format, or matplotlib is not installed.
        ConfigError: the file cannot be written.
    """
    check_format(out)
    sheet = sheet or Sheet()
    save(draw(found, show_malicious, sheet), out, sheet)
    return out


def draw(found: Holdings, show_malicious: bool = False, sheet: Sheet | None = None) -> Any:
    """The matplotlib figure."""
    sheet = sheet or Sheet()
    with sheet.style():
        return _draw(sheet, found, show_malicious)


def _draw(sheet: Sheet, found: Holdings, show_malicious: bool) -> Any:
    n = len(found.sizes)
    many = found.counts is not None and found.counts.shape[1] > len(CLASSES[sheet.dark])
    figure = sheet.figure(3.6 if many else 2.6)
    marked = sorted(found.malicious) if show_malicious else []
    if many:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.2))
        _sizes(sheet, top, found)
        _heat(sheet, figure, bottom, found)
    else:
        top = bottom = figure.subplots()
        _stacked(sheet, top, found)
    _mark(sheet, top, found, marked)
    if marked or (found.counts is not None and not many):
        where, corner = ("lower right", (1.0, 0.95)) if many else ("upper left", (1.0, 1.0))
        top.legend(title=None if many else "class", loc=where, bbox_to_anchor=corner, reverse=True)
    _number(sheet, bottom, n)
    if found.clients and n <= MOST_NUMBERED:
        bottom.set_xticks(np.arange(n), found.clients, rotation=90)
    if many and found.classes and len(found.classes) <= MOST_NUMBERED:
        bottom.set_yticks(np.arange(len(found.classes)), found.classes)
    bottom.set_xlabel("client")
    words = "\n".join([found.title, *textwrap.wrap(found.summary, int(16 * sheet.width))])
    figure.suptitle(words, fontsize=8, x=0.01, ha="left")
    return figure


def _stacked(sheet: Sheet, axis: Any, found: Holdings) -> None:
    """One bar per client, a piece of it for each class."""
    if found.counts is None:
        _sizes(sheet, axis, found)
        return
    n = len(found.sizes)
    place, floor = np.arange(n), np.zeros(n)
    edge = 0.6 if n <= MOST_NUMBERED else 0.0
    for label, column in enumerate(found.counts.T):
        axis.bar(
            place,
            column,
            bottom=floor,
            width=0.86,
            color=CLASSES[sheet.dark][label],
            label=found.classes[label] if found.classes else str(label),
            edgecolor=sheet.colors["paper"],
            linewidth=edge,
        )
        floor = floor + column
    _frame(axis, n, found.sizes.max())


def _sizes(sheet: Sheet, axis: Any, found: Holdings) -> None:
    axis.bar(np.arange(len(found.sizes)), found.sizes, width=0.86, color=sheet.colors[BENIGN])
    _frame(axis, len(found.sizes), found.sizes.max())


def _frame(axis: Any, n: int, top: int) -> None:
    axis.set_ylabel("samples")
    axis.set_xlim(-0.8, n - 0.2)
    axis.set_ylim(0, 1.1 * top)


def _heat(sheet: Sheet, figure: Any, axis: Any, found: Holdings) -> None:
    """Classes by clients; the darker, the more samples, and the ground for none."""
    from matplotlib.colors import LinearSegmentedColormap

    assert found.counts is not None  # noqa: S101 - the caller has looked
    values = np.where(found.counts > 0, found.counts, np.nan).T
    image = axis.imshow(
        values,
        aspect="auto",
        cmap=LinearSegmentedColormap.from_list("blues", BLUES[sheet.dark]),
        interpolation="nearest",
        origin="lower",
    )
    axis.set_ylabel("class")
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, label="samples", fraction=0.05, pad=0.01)


def _mark(sheet: Sheet, axis: Any, found: Holdings, marked: list[int]) -> None:
    """A triangle above the bar of each malicious client."""
    if marked:
        above = found.sizes[marked] + 0.035 * found.sizes.max()
        axis.plot(
            marked, above, "v", color=sheet.colors[MALICIOUS], markersize=5, label="malicious", clip_on=False
        )


def _number(sheet: Sheet, axis: Any, n: int) -> None:
    room = 0.7 * 72 * sheet.width / n  # points per client
    step = next(step for step in (1, 2, *range(5, n + 10, 5)) if step * room >= 9)
    axis.set_xticks(np.arange(0, n, step))
    axis.tick_params(axis="x", length=2, labelsize=6 if n > 24 else 7)
