"""A figure of who has what, with matplotlib (extra: plot)."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError, ParameterError
from ...core.extras import extra_module
from ...core.files import why, write_atomically
from ..suites.holdings import Holdings
from .figures.style import LIGHT as COLORS
from .plot import FORMATS

#: Ten colors that stay apart with any kind of color vision (Paul Tol's muted scheme).
CLASSES = (
    *("#332288", "#88ccee", "#44aa99", "#117733", "#999933"),
    *("#ddcc77", "#cc6677", "#882255", "#aa4499", "#bbbbbb"),
)
#: From one sample to the most.
BLUES = ("#a9cfe8", "#2f8fce", "#06213d")
MALICIOUS = COLORS[1]
#: More clients than this do not get a number each, nor more classes a name each.
MOST_NUMBERED = 40


def plot_holdings(found: Holdings, out: Path, show_malicious: bool = False) -> Path:
    """Draw one bar per client, in the colors of its classes; with more than ten classes a heat map.

    Args:
        found: who has what.
        out: the file, .png, .svg or .pdf.
        show_malicious: mark the malicious clients.

    Raises:
        ParameterError: an unknown format, or matplotlib is not installed.
        ConfigError: the file cannot be written.
    """
    if out.suffix.lower() not in FORMATS:
        raise ParameterError(f"cannot write {out.name}: use a name that ends in {', '.join(FORMATS)}")
    extra_module("matplotlib", "plot", "a figure of a partition")
    figure = draw(found, show_malicious)
    try:
        write_atomically(out, lambda fresh: figure.savefig(fresh, dpi=150, format=out.suffix[1:].lower()))
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {why(error)}") from None
    return out


def draw(found: Holdings, show_malicious: bool = False) -> Any:
    """The matplotlib figure."""
    from matplotlib.figure import Figure

    n = len(found.sizes)
    many = found.counts is not None and found.counts.shape[1] > len(CLASSES)
    width = float(np.clip(3.5 + 0.14 * n, 6.4, 13))
    figure = Figure(figsize=(width, 4.6 if many else 3.8), layout="constrained")
    marked = sorted(found.malicious) if show_malicious else []
    if many:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2.2))
        _sizes(top, found)
        _heat(figure, bottom, found)
    else:
        top = bottom = figure.subplots()
        _stacked(top, found)
    _mark(top, found, marked)
    if marked or (found.counts is not None and not many):
        where, corner = ("lower right", (1.0, 0.95)) if many else ("upper left", (1.0, 1.0))
        look = {"fontsize": 8, "title_fontsize": 8, "frameon": False, "reverse": True}
        legend = top.legend(title=None if many else "class", loc=where, bbox_to_anchor=corner, **look)
        for text in legend.get_texts():
            text.set_parse_math(False)
    _number(bottom, n)
    if found.clients and n <= MOST_NUMBERED:
        bottom.set_xticks(np.arange(n), found.clients, rotation=90, parse_math=False)
    if many and found.classes and len(found.classes) <= MOST_NUMBERED:
        bottom.set_yticks(np.arange(len(found.classes)), found.classes, parse_math=False)
    bottom.set_xlabel("client")
    words = "\n".join([found.title, *textwrap.wrap(found.summary, int(13 * width))])
    figure.suptitle(words, fontsize=9, x=0.01, ha="left", parse_math=False)
    return figure


def _stacked(axis: Any, found: Holdings) -> None:
    """One bar per client, a piece of it for each class."""
    if found.counts is None:
        _sizes(axis, found)
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
            color=CLASSES[label],
            label=found.classes[label] if found.classes else str(label),
            edgecolor="white",
            linewidth=edge,
        )
        floor = floor + column
    _frame(axis, n, found.sizes.max())


def _sizes(axis: Any, found: Holdings) -> None:
    axis.bar(np.arange(len(found.sizes)), found.sizes, width=0.86, color=COLORS[0])
    _frame(axis, len(found.sizes), found.sizes.max())


def _frame(axis: Any, n: int, top: int) -> None:
    axis.set_ylabel("samples")
    axis.set_xlim(-0.8, n - 0.2)
    axis.set_ylim(0, 1.1 * top)
    axis.spines[["top", "right"]].set_visible(False)


def _heat(figure: Any, axis: Any, found: Holdings) -> None:
    """Classes by clients; the darker, the more samples, and white for none."""
    from matplotlib.colors import LinearSegmentedColormap

    assert found.counts is not None  # noqa: S101 - the caller has looked
    values = np.where(found.counts > 0, found.counts, np.nan).T
    image = axis.imshow(
        values,
        aspect="auto",
        cmap=LinearSegmentedColormap.from_list("blues", BLUES),
        interpolation="nearest",
        origin="lower",
    )
    axis.set_ylabel("class")
    axis.spines[:].set_visible(False)
    figure.colorbar(image, ax=axis, label="samples", fraction=0.05, pad=0.01)


def _mark(axis: Any, found: Holdings, marked: list[int]) -> None:
    """A triangle above the bar of each malicious client."""
    if marked:
        above = found.sizes[marked] + 0.035 * found.sizes.max()
        axis.plot(marked, above, "v", color=MALICIOUS, markersize=5, label="malicious", clip_on=False)


def _number(axis: Any, n: int) -> None:
    step = 1 if n <= MOST_NUMBERED else int(np.ceil(n / 20 / 5) * 5)
    axis.set_xticks(np.arange(0, n, step))
    axis.tick_params(axis="x", length=2, labelsize=7)
    axis.tick_params(axis="y", labelsize=8)
