"""ROC curves, a plot per attack."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from ..report.results import Line, Panel
from .axes import Axis
from .picture import Dots, Key, Mark, Picture, Plot, Points, Stroke, line_of, named_lines, over

#: Width and height between the axes in the report, in pixels.
SIZE = (184, 184)
GUESSING = Stroke([(0.0, 0.0), (1.0, 1.0)], "soft", 2, thin=True)


def roc(panels: Sequence[Panel], seeds: int) -> Picture:
    """A curve per defense, with a ring where it decided; the dotted diagonal is guessing."""
    panels = [panel for panel in panels if panel.lines]
    x, y = Axis("false positive rate", 0.0, 1.0), Axis("true positive rate", 0.0, 1.0)
    looks = {line.name: line.rank for panel in panels for line in panel.lines}
    keys = [*named_lines(looks), Key("where it decided", Dots((), "ink", filled=False))]
    return Picture(
        "ROC curves",
        [Plot(panel.title, x, y, _marks(panel.lines), _alt(panel), SIZE) for panel in panels],
        "no roc to draw", f"mean over rounds; {over(seeds)}", [*keys, Key("guessing", GUESSING)],
    )  # fmt: skip


def _marks(lines: Sequence[Line]) -> list[Mark]:
    """Gray lines below colored ones."""
    marks: list[Mark] = [GUESSING]
    for line in sorted(lines, key=lambda line: line.rank >= 0):
        marks.append(Stroke(line.points, *line_of(line.rank), label=line.name))
    for line in lines:
        if line.mark and line.rank >= 0:
            label = f"{line.name}: where it decided"
            marks.append(Dots([line.mark], line_of(line.rank)[0], filled=False, label=label))
    return marks


def _alt(panel: Panel) -> str:
    areas = ", ".join(f"{line.name} {area(line.points):.3f}" for line in panel.lines[:12])
    return f"ROC curves under {panel.title}: true positive rate by false positive rate, areas {areas}"


def area(points: Points) -> float:
    """The area under a curve."""
    pairs = itertools.pairwise(points)
    return sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairs)
