"""What a picture shows, in data coordinates: plots with axes and marks.

:mod:`.printed` draws it for papers, :mod:`.svg` for the report.

Colors are names of :data:`fedguard.evaluation.results.figures.style.COLORS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from .axes import Axis

Points: TypeAlias = Sequence[tuple[float, float]]
#: The most characters of a name in a picture.
NAME = 22
#: The width of a character as a share of the size of the font.
CHARACTER = 0.58
#: The largest dot between named axes, as a share of a cell.
CELL = 0.6


def short(name: str, limit: int = NAME) -> str:
    """A name, shortened to the limit."""
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def width_of(names: Sequence[str], size: float) -> float:
    """The approximate width of the longest of some (shortened) names."""
    return max((len(short(name)) for name in names), default=0) * size * CHARACTER


@dataclass(frozen=True)
class Stroke:
    """A line; NaN interrupts it.

    Attributes:
        points: x and y.
        color: its name.
        dash: the number of its style in :data:`.style.DASHES`.
        thin: an auxiliary line.
        label: what it is; a tooltip in the report, and the name at its end in print.
    """

    points: Points
    color: str
    dash: int = 0
    thin: bool = False
    label: str = ""


@dataclass(frozen=True)
class Area:
    """A translucent polygon."""

    points: Points
    color: str


@dataclass(frozen=True)
class Boxes:
    """Rectangles of one color.

    Attributes:
        boxes: x and y of one corner, then of the opposite one.
        color: its name; empty for a dashed outline.
        label: what they are; a tooltip in the report.
        text: written in the middle of a single box.
        ink: the color of the text.
        striped: in the color and the paper's.
    """

    boxes: Sequence[tuple[float, float, float, float]]
    color: str
    label: str = ""
    text: str = ""
    ink: str = "ink"
    striped: bool = False


@dataclass(frozen=True)
class Dots:
    """Markers.

    Attributes:
        points: x and y.
        color: its name.
        size: the diameter; 1 is a plain marker, or as large as the cells of named axes allow.
        filled: or a ring.
        shape: the number of its shape in :data:`.style.SHAPES`; 0 is round.
        label: what they are; a tooltip in the report.
        name: written beside a single one.
    """

    points: Points
    color: str
    size: float = 1.0
    filled: bool = True
    shape: int = 0
    label: str = ""
    name: str = ""


@dataclass(frozen=True)
class Text:
    """Words at a place: centered, or starting right or ending left of it."""

    x: float
    y: float
    text: str
    color: str = "ink"
    right: bool = False
    left: bool = False


Mark: TypeAlias = Stroke | Area | Boxes | Dots | Text


@dataclass(frozen=True)
class Key:
    """An entry of the legend: what a mark without points stands for."""

    text: str
    mark: Mark


@dataclass(frozen=True)
class Plot:
    """One pair of axes.

    Attributes:
        title: its name among others.
        x: the horizontal axis.
        y: the vertical axis.
        marks: later ones cover earlier ones.
        alt: words for those who do not see it.
        size: width and height between the axes, in pixels of the report.
        notes: what only the report has room for.
        right: pixels right of the axes for words.
        bare: a diagram without axes.
    """

    title: str
    x: Axis
    y: Axis
    marks: Sequence[Mark]
    alt: str
    size: tuple[float, float]
    notes: tuple[str, ...] = ()
    right: float = 0.0
    bare: bool = False

    @property
    def square(self) -> bool:
        """Both axes have the same unit."""
        return self.size[0] == self.size[1]


@dataclass(frozen=True)
class Picture:
    """Plots with one legend.

    Attributes:
        title: of the whole.
        plots: of one kind; none if there is nothing to draw.
        empty: why there is none, for an error.
        note: what the numbers are, such as means.
        keys: the legend.
        shades: what the worst and the best of the colors c0 to c10 stand for; None without these colors.
        row: the height of a row of plots in print, in inches.
        across: plots side by side in print; as many as fit if 0.
        widest: the width in print, in inches; 0 for the whole width.
        direct: a single plot in print has names at the ends of its lines, not in a legend.
    """

    title: str
    plots: Sequence[Plot]
    empty: str
    note: str = ""
    keys: Sequence[Key] = ()
    shades: tuple[str, str] | None = None
    row: float = 1.5
    across: int = 0
    widest: float = 0.0
    direct: bool = False

    def only(self, count: int) -> Picture:
        """The first of its plots."""
        return replace(self, plots=self.plots[:count])


def line_of(look: int) -> tuple[str, int]:
    """Color and dash of a method's look; gray for a negative number.

    Example:
        >>> line_of(9), line_of(-1)
        (('l1', 1), ('other', 0))
    """
    return ("other", 0) if look < 0 else (f"l{look % 8}", look // 8 % 4)


def named_lines(looks: dict[str, int]) -> list[Key]:
    """A legend entry per method that has a color, and one for the others."""
    keys = [Key(name, Stroke((), *line_of(look))) for name, look in looks.items() if look >= 0]
    others = sum(look < 0 for look in looks.values())
    return [*keys, Key(f"{others} others", Stroke((), "other"))] if others else keys


def side_by_side(groups: Sequence[str]) -> int:
    """How many plots a row of print has if each group, such as an attack, has equally many; 0 if not."""
    each, rest = divmod(len(groups), len(set(groups)) or 1)
    return 0 if rest else each


def over(seeds: int) -> str:
    """What a number is the mean of."""
    return f"mean over {seeds} seeds" if seeds > 1 else "1 seed"
