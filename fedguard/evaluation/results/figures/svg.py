"""Plots as SVG for the report: colors are the page's variables, so that they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from .picture import (
    CELL,
    CHARACTER,
    Area,
    Boxes,
    Dots,
    Key,
    Mark,
    Plot,
    Points,
    Stroke,
    Text,
    short,
    width_of,
)
from .places import Beside, Box, beside
from .style import BENIGN, MALICIOUS, SHAPES

#: Sizes of fonts in pixels: of names, and of ticks and other small words.
NAMES, SMALL = 12.0, 11.0
#: The radius of a marker in pixels.
RADIUS = 4.5
#: Cosine of the angle at which names stand above columns.
SLANT = 0.72
#: The colors of stripes.
STRIPED = (BENIGN, MALICIOUS)
#: About so many ticks of an axis.
TICKS = 5


def px(value: float) -> str:
    """A length, to one decimal."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


@dataclass(frozen=True)
class Drawing:
    """A plot with its place in pixels.

    Attributes:
        plot: what is drawn.
        left: where the axes start.
        top: where they end above.
        width: of everything.
        height: of everything.
    """

    plot: Plot
    left: float
    top: float
    width: float
    height: float

    def x(self, value: float) -> float:
        """The pixel of a value."""
        return self.left + self.plot.size[0] * self.plot.x.place(value)

    def y(self, value: float) -> float:
        """The pixel of a value, from above."""
        return self.top + self.plot.size[1] * (1 - self.plot.y.place(value))

    @property
    def wide(self) -> bool:
        """It has names in it: its words would be unreadable if it were shrunk far."""
        return bool(self.plot.bare or self.plot.x.names or self.plot.y.names)

    @property
    def svg(self) -> str:
        """Safe markup."""
        fit = f' class="wide" style="--w:{px(self.width)}px"' if self.wide else ""
        fit = fit or f' style="max-width:{px(1.35 * self.width)}px"'
        marks = (part for mark in self.plot.marks for part in _mark(self, mark))
        axes = () if self.plot.bare else _axes(self)
        body = "".join([*axes, *marks, *_names(self)])
        return (
            f'<svg role="img"{fit} viewBox="0 0 {px(self.width)} {px(self.height)}" '
            f'aria-label="{escape(self.plot.alt)}">{body}</svg>'
        )


def drawing(plot: Plot) -> Drawing:
    """Leave room for names and ticks around a plot."""
    if plot.bare:
        return _bare(plot)
    x, y = plot.x, plot.y
    texts = [text for _, text in y.ticks(TICKS)]
    corner = [_corner(plot)] if y.names else []
    left = width_of([*texts, *corner], NAMES if y.names else SMALL) + (16 if y.names else 26)
    left += 12 if y.strong else 0
    top, right, bottom = 12.0, 8.0, 38.0
    if x.names:
        slanted = [SLANT * width_of([name], NAMES) for name in x.names]
        cell = plot.size[0] / len(x.names)
        top, bottom = max(slanted) + 18, 6.0
        right += max(0.0, *(wide - (len(slanted) - i - 0.5) * cell for i, wide in enumerate(slanted)))
    elif y.names:
        top = 22.0
    if not x.names:  # half of the last tick's words may stand beyond the end of the axis
        over = (plot.size[0] * (x.place(at) - 1) + width_of([text], SMALL) / 2 for at, text in x.ticks(TICKS))
        right = max([right, *over])
    return Drawing(plot, left, top, left + plot.size[0] + max(right, plot.right), top + plot.size[1] + bottom)


def _bare(plot: Plot) -> Drawing:
    """A diagram, with room for words that stand beyond its frame."""
    wide, high = plot.size
    left = right = 4.0
    for word in (mark for mark in plot.marks if isinstance(mark, Text)):
        place, size = wide * plot.x.place(word.x), len(word.text) * SMALL * CHARACTER + 8
        left = max(left, size - place if word.left else 0.0)
        right = max(right, place + size - wide if word.right else 0.0)
    return Drawing(plot, left, 0.0, left + wide + right, high)


def swatch(key: Key) -> str:
    """The mark of a legend's entry."""
    mark = key.mark
    if isinstance(mark, Stroke):
        inner = f'<path class="{_stroke(mark)}" d="M1 5H25"/>'
    elif isinstance(mark, Boxes | Area):
        kind = "area " if isinstance(mark, Area) else ""
        striped = isinstance(mark, Boxes) and mark.striped
        fill = _stripes(mark.color) if striped else f'class="{kind}f-{mark.color}"'
        inner = f'<rect {fill} x="3" width="20" height="10"/>'
    elif isinstance(mark, Dots):
        inner = _dot(13, 5, mark, 4 * mark.size)
    else:
        inner = ""
    return f'<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true">{inner}</svg>'


# ---------------------------------------------------------------- axes


def _corner(plot: Plot) -> str:
    return f"{plot.y.label} ↓ {plot.x.label} →" if plot.x.names else plot.y.label


def _axes(to: Drawing) -> Iterator[str]:
    wide, high = to.plot.size
    low, end = to.top + high, to.left + wide
    yield from _down(to, end)
    yield from _across(to, low)
    if not to.wide:
        yield f'<path class="base" d="M{px(to.left)} {px(low)}H{px(end)}"/>'
        middle = f"translate(10 {px(to.top + high / 2)}) rotate(-90)"
        yield f'<text class="axis" transform="{middle}" text-anchor="middle">{escape(to.plot.y.label)}</text>'
    if not to.plot.x.names:
        yield _word("axis", to.left + wide / 2, low + 31, "middle", to.plot.x.label)


def _down(to: Drawing, end: float) -> Iterator[str]:
    y = to.plot.y
    if y.names:
        yield _word("axis", to.left - 8, to.top - 8, "end", _corner(to.plot))
    for value, text in y.ticks(TICKS):
        place = to.y(value)
        if not y.names:
            yield f'<path class="grid" d="M{px(to.left)} {px(place)}H{px(end)}"/>'
            yield _word("tick", to.left - 5, place + 3.5, "end", text)
        elif int(value) in y.strong:
            yield _word("strong", to.left - 8, place + 4, "end", f"▲ {short(text)}", f"{text}, malicious")
        else:
            yield _word("", to.left - 8, place + 4, "end", short(text), text)


def _across(to: Drawing, low: float) -> Iterator[str]:
    for value, text in to.plot.x.ticks(TICKS):
        place = to.x(value)
        if to.plot.x.names:
            slant = f"translate({px(place + 2)} {px(to.top - 6)}) rotate(-45)"
            yield f'<text transform="{slant}">{escape(short(text))}<title>{escape(text)}</title></text>'
        else:
            line = f"{px(to.top)}V{px(low)}" if to.plot.y.names and not to.plot.y.strong else f"{px(low)}v4"
            yield f'<path class="grid" d="M{px(place)} {line}"/>'
            yield _word("tick", place, low + 16, "middle", text)


def _word(kind: str, x: float, y: float, anchor: str, text: str, full: str = "") -> str:
    title = f"<title>{escape(full)}</title>" if full else ""
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{px(x)}" y="{px(y)}" text-anchor="{anchor}">{escape(text)}{title}</text>'


# ---------------------------------------------------------------- marks


def _mark(to: Drawing, mark: Mark) -> Iterator[str]:
    if isinstance(mark, Stroke):
        yield f'<path class="{_stroke(mark)}" d="{path(to, mark.points)}">{_title(mark.label)}</path>'
    elif isinstance(mark, Area):
        yield f'<path class="area f-{mark.color}" d="{path(to, mark.points)}Z"/>'
    elif isinstance(mark, Boxes):
        yield _boxes(to, mark)
    elif isinstance(mark, Dots):
        yield from _dots(to, mark)
    else:
        anchor, shift = ("start", 6.0) if mark.right else ("end", -6.0) if mark.left else ("middle", 0.0)
        kind = f"small f-{mark.color}"
        yield _word(kind, to.x(mark.x) + shift, to.y(mark.y) + 4, anchor, mark.text)


def path(to: Drawing, points: Points) -> str:
    """The ``d`` of an SVG path through points; NaN interrupts it."""
    parts, pen_up = [], True
    for a, b in points:
        if math.isnan(a) or math.isnan(b):
            pen_up = True
            continue
        parts.append(f"{'M' if pen_up else 'L'}{px(to.x(a))} {px(to.y(b))}")
        pen_up = False
    return "".join(parts)


def _stroke(mark: Stroke) -> str:
    dash = f" dash{mark.dash}" if mark.dash else ""
    return f"{'thin' if mark.thin else 'line'} s-{mark.color}{dash}"


def _stripes(color: str) -> str:
    """The fill of a striped box; the page defines the pattern of :data:`STRIPED` colors."""
    return f'fill="url(#stripes-{color})" stroke="none"'


def _title(text: str) -> str:
    return f"<title>{escape(text)}</title>" if text else ""


def _boxes(to: Drawing, mark: Boxes) -> str:
    parts = []
    for x0, y0, x1, y1 in mark.boxes:
        left, right, start, end = to.x(x0), to.x(x1), to.y(y0), to.y(y1)
        parts.append(f"M{px(left)} {px(start)}H{px(right)}V{px(end)}H{px(left)}Z")
    kind = _stripes(mark.color) if mark.striped else f'class="{f"f-{mark.color}" if mark.color else "none"}"'
    shape = f'<path {kind} d="{"".join(parts)}">{"" if mark.text else _title(mark.label)}</path>'
    if not mark.text:
        return shape
    x0, y0, x1, y1 = mark.boxes[0]
    x, y = (to.x(x0) + to.x(x1)) / 2, (to.y(y0) + to.y(y1)) / 2 + 4
    word = f'<text class="cell f-{mark.ink}" x="{px(x)}" y="{px(y)}">{escape(mark.text)}</text>'
    return f"<g>{_title(mark.label)}{shape}{word}</g>"


def _dots(to: Drawing, mark: Dots) -> Iterator[str]:
    radius = RADIUS * mark.size
    if to.plot.x.names:
        wide, high = to.plot.size
        radius = CELL * min(wide / len(to.plot.x.names), high / len(to.plot.y.names)) / 2 * mark.size
    if len(mark.points) > 1 and mark.filled and not mark.shape:
        dots = "".join(f"M{px(to.x(x))} {px(to.y(y))}h0" for x, y in mark.points)
        yield f'<path class="dots s-{mark.color}" style="stroke-width:{px(2 * radius)}" d="{dots}"/>'
        return
    for x, y in mark.points:
        yield _dot(to.x(x), to.y(y), mark, radius)


def _dot(x: float, y: float, mark: Dots, radius: float) -> str:
    kind = f"mark s-{mark.color} f-{mark.color if mark.filled else 'paper'}"
    if not mark.shape:
        place = f'cx="{px(x)}" cy="{px(y)}" r="{px(radius)}"'
        return f'<circle class="{kind}" {place}>{_title(mark.label)}</circle>'
    corners = " ".join(f"{px(x + radius * a)},{px(y - radius * b)}" for a, b in SHAPES[mark.shape])
    return f'<polygon class="{kind}" points="{corners}">{_title(mark.label)}</polygon>'


def _names(to: Drawing) -> Iterator[str]:
    """The names of single dots, where they cover little."""
    marks = [mark for mark in to.plot.marks if isinstance(mark, Dots) and mark.name]
    points = [(to.x(mark.points[0][0]), -to.y(mark.points[0][1])) for mark in marks]
    frame = Box(to.left, -to.top - to.plot.size[1], to.left + to.plot.size[0], -to.top)
    found: list[Beside] = beside(points, [mark.name for mark in marks], SMALL, frame)
    for mark, (x, y), place in zip(marks, points, found, strict=True):
        anchor = "start" if place.right else "end"
        yield _word("small", x + place.x, -(y + place.y) + 4, anchor, short(mark.name), mark.name)
