"""The figures of ``fedguard plot`` inside the report: SVG whose colors follow the page's light or dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

from ....core.errors import ParameterError
from ....core.extras import extra_module
from ..figures import pareto, who_sees_what
from ..figures.style import LIGHT, PAGE, Sheet
from ..store import Store
from .results import Section

#: So many defenses fit into one column.
FEW = 6
#: The page's CSS variables by the color of a figure on white.
_VARIABLES = {color: f"var(--l{i})" for i, color in enumerate(LIGHT)} | {
    PAGE[False].ink: "var(--ink)",
    PAGE[False].soft: "var(--rule)",
    PAGE[False].other: "var(--other)",
    PAGE[False].paper: "var(--paper)",
}
_PROLOG = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", re.DOTALL)
_IDS = re.compile(r'(?<= id=")(?=[^"])|(?<=href="#)|(?<=url\(#)')


@dataclass(frozen=True)
class Figure:
    """A figure of the report.

    Attributes:
        title: its caption.
        svg: safe markup.
        width: in pixels.
    """

    title: str
    svg: str
    width: float


def drawn(store: Store, part: Section, place: str) -> list[Figure]:
    """Who sees what, and the trade-offs; empty without matplotlib.

    Args:
        store: of the results folder.
        part: the section.
        place: what its ids start with.
    """
    try:
        extra_module("matplotlib", "plot", "figures")
    except ParameterError:
        return []
    sheet = Sheet()
    narrow = Sheet(1) if len(part.defenses) <= FEW else sheet
    kinds: dict[str, tuple[Callable[[], Any], str]] = {
        "Who sees what": (lambda: who_sees_what.draw(narrow, part), _sights(part)),
        "Honest clients accused, attackers missed": (lambda: pareto.draw_rates(sheet, part), _rates(part)),
        "Accuracy and cost": (lambda: pareto.draw_costs(sheet, store, part), _costs(store, part)),
    }
    found = []
    for number, (title, (draw, alt)) in enumerate(kinds.items()):
        try:
            with sheet.style():
                figure = draw()
        except ParameterError:  # nothing to draw
            continue
        found.append(_figure(sheet, figure, title, f"{title}: {alt}", f"{place}f{number}"))
    return found


def _figure(sheet: Sheet, figure: Any, title: str, alt: str, place: str) -> Figure:
    stream = io.StringIO()
    with sheet.style(), extra_module("matplotlib", "plot", "figures").rc_context({"svg.fonttype": "none"}):
        figure.savefig(stream, format="svg")
    wide, high = (72 * float(size) for size in figure.get_size_inches())
    text = _PROLOG.sub("", stream.getvalue())
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    text = _IDS.sub(f"{place}-", text)
    small = " tall" if wide < 300 else ""
    opening = (
        f'<svg role="img" class="drawn{small}" viewBox="0 0 {wide:g} {high:g}" '
        f'aria-label="{escape(alt)}" style="max-width:{1.5 * wide:.0f}px">'
    )
    return Figure(title, re.sub(r"<svg[^>]*>", lambda _: opening, text, count=1), wide)


def _sights(part: Section) -> str:
    known = part.frame.dropna(subset=["auroc"])
    return "AUROC of " + ", ".join(
        f"{row['defense']} under {row['attack']} {row['auroc']:.2f}" for _, row in known.head(60).iterrows()
    )


def _rates(part: Section) -> str:
    return ", ".join(f"{p.name} FPR {p.x:.1f} %, FNR {p.y:.1f} %" for p in pareto.rates(part))


def _costs(store: Store, part: Section) -> str:
    points = pareto.accuracy_costs(store, part)
    return ", ".join(f"{p.name} {p.x:.2g} s, accuracy {p.y:.1f} %" for p in points)
