"""Sizes, fonts and colors of all figures, and the look of each method.

The colors are those of Okabe and Ito (2008), darkened until they have a contrast of 3:1 on white
(lightened on black), so that they stay apart with any kind of color vision. A method has its color and line
style in every figure, whatever suite it is in. There are more methods than colors, hence the line styles.
"""

from __future__ import annotations

import functools
import hashlib
import io
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from ....core.errors import ParameterError
from ....core.extras import extra_module

#: Light and dark: blue, vermilion, green, purple, orange, sky blue, brown; then black (white) for no defense.
LIGHT = ("#0072b2", "#d55e00", "#00845f", "#a6458a", "#a87400", "#2f8fce", "#7a5230", "#22262b")
DARK = ("#5cb3f0", "#ff9450", "#3dd6a3", "#ef9fd0", "#f2c14e", "#9bd8ff", "#c9a27a", "#f2f3f4")
#: Lengths of dashes and gaps; none is a solid line.
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 3), (2, 2), (6, 2, 1.5, 2))
_STEPS = (
    (
        *("#8f3d00", "#b85a0c", "#ec9648", "#f9c28f", "#fce3cb", "#f1f0ee"),
        *("#d5e7f3", "#a4cee8", "#67a9d5", "#2874ae", "#0b4a82"),
    ),
    (
        *("#ffad66", "#e08a3c", "#a35f24", "#774a23", "#4f3827", "#2c3036"),
        *("#263f55", "#255a82", "#2b73a9", "#559fdc", "#8fcbff"),
    ),
)
_ON_STEPS = {
    **dict.fromkeys((0, 1, 9, 10), ("#ffffff", "#10151a")),
    **dict.fromkeys((2, 3), ("#1d2126", "#ffffff")),
    8: ("#10151a", "#ffffff"),
}


def _star(rays: int, turn: float) -> tuple[tuple[float, float], ...]:
    corners = ((1.3 if k % 2 == 0 else 0.5, turn + math.pi * k / rays) for k in range(2 * rays))
    return tuple((radius * math.cos(angle), radius * math.sin(angle)) for radius, angle in corners)


#: Corners of the shapes of markers, y upwards; a circle has none.
SHAPES: tuple[tuple[tuple[float, float], ...], ...] = (
    (),
    ((-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)),
    ((0.0, -1.2), (0.9, 0.0), (0.0, 1.2), (-0.9, 0.0)),
    ((-1.1, -0.9), (1.1, -0.9), (0.0, 1.1)),
    ((-1.1, 0.9), (1.1, 0.9), (0.0, -1.1)),
    _star(4, 0.0),
    _star(4, math.pi / 4),
    _star(5, math.pi / 2),
)
#: Widths in inches of one and two columns of a paper (IEEE; others are within 0.3).
WIDTHS = {1: 3.5, 2: 7.16}
#: The black look.
NO_DEFENSE = 7
_BLACK = ("no_defense", "undefended", "none", "nothing", "mean", "fedavg")
#: The looks of well-known defenses, in order: seven colors with a solid line, then dashed, and so on.
_FIXED = (
    *("recommended", "krum", "dnc", "lfr", "foolsgold", "fedredefense", "median"),
    *("m_krum", "flame", "err", "multi_krum", "norm_bound", "fltrust", "trimmed_mean"),
    *("fldetector", "deepsight", "signguard", "bulyan", "union", "flanders", "ensemble"),
    *("geometric_median", "rfa", "centered_clipping", "rflbat", "multi_metric", "freqfed", "afa"),
)
LOOKS = 32


#: Every color of figures and of the report by its name, light and dark: of the page, of methods (l0, …), from
#: worse to better (c0, …) with the text on it (t0, …), and of what became of a client.
COLORS: Mapping[str, tuple[str, str]] = {
    "paper": ("#ffffff", "#14171b"),
    "ink": ("#1d2126", "#e8eaed"),
    "soft": ("#5b636d", "#a3abb5"),
    "rule": ("#dcdedf", "#353b43"),
    "other": ("#c3c7cb", "#4a525c"),
    "evil": ("#b04a00", "#ff9450"),
    "passed": ("#e3e7ea", "#2e353d"),
    "flagged": ("#e8803a", "#e8803a"),
    "banned": ("#23272d", "#f2f3f4"),
    **{f"l{i}": pair for i, pair in enumerate(zip(LIGHT, DARK, strict=True))},
    **{f"c{i}": pair for i, pair in enumerate(zip(*_STEPS, strict=True))},
    **{f"t{i}": _ON_STEPS.get(i, ("#1d2126", "#e8eaed")) for i in range(len(_STEPS[0]))},
}
#: Of benign and of malicious clients.
BENIGN, MALICIOUS = "l0", "l1"


def looks(labels: Iterable[str]) -> dict[str, int]:
    """Label → number of its look; 0 to 31: color ``look % 8``, line style ``look // 8``.

    A well-known method always has the same one; another gets one from its name, or the next that is free.

    Example:
        >>> looks(["krum", "no_defense"]), looks(["dnc", "krum"])
        ({'krum': 1, 'no_defense': 7}, {'dnc': 2, 'krum': 1})
    """
    wanted = list(dict.fromkeys(labels))
    found: dict[str, int] = {}
    for label in sorted(wanted, key=lambda one: one not in _FIXED and one not in _BLACK):
        look = _own(label)
        while look in found.values() and len(found) < LOOKS:
            look = (look + 1) % LOOKS
        found[label] = look
    return {label: found[label] for label in wanted}


def _own(label: str) -> int:
    if label in _BLACK:
        return NO_DEFENSE
    place = (
        _FIXED.index(label)
        if label in _FIXED
        else int(hashlib.sha256(label.encode()).hexdigest()[:8], 16) % len(_FIXED)
    )
    return 8 * (place // 7) + place % 7


@dataclass(frozen=True)
class Sheet:
    """What a figure is drawn on.

    Attributes:
        columns: 1 or 2, of a paper.
        dark: light lines on a dark ground.

    Raises:
        ParameterError: other columns.
    """

    columns: int = 2
    dark: bool = False

    def __post_init__(self) -> None:
        if self.columns not in WIDTHS:
            raise ParameterError(f"columns must be 1 or 2, got {self.columns}")

    @property
    def width(self) -> float:
        """In inches."""
        return WIDTHS[self.columns]

    @property
    def colors(self) -> dict[str, str]:
        """Every color by its name."""
        return {name: pair[self.dark] for name, pair in COLORS.items()}

    @property
    def steps(self) -> list[str]:
        """Colors from worse to better."""
        return [self.colors[f"c{i}"] for i in range(len(_STEPS[0]))]

    def figure(self, height: float, width: float = 0.0) -> Any:
        """An empty figure, as wide as the columns unless ``width`` says otherwise."""
        return _shown()(
            figsize=(width or self.width, height), layout="constrained", facecolor=self.colors["paper"]
        )

    @contextmanager
    def style(self) -> Iterator[None]:
        """matplotlib's settings while a figure is drawn or saved."""
        settings = extra_module("matplotlib", "plot", "a figure").rc_context(self._settings())
        with settings, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # it draws a box for it
            yield

    def _settings(self) -> dict[str, Any]:
        colors = self.colors
        ink = dict.fromkeys(
            ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), colors["ink"]
        )
        return {
            **ink,
            "axes.facecolor": colors["paper"],
            "savefig.facecolor": colors["paper"],
            "legend.facecolor": colors["paper"],
            "grid.color": colors["rule"],
            "font.family": "sans-serif",
            "font.size": 8,
            "axes.titlesize": 8,
            "axes.labelsize": 8,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "xtick.labelsize": 7,
            "ytick.labelsize": 7,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "legend.fontsize": 7,
            "legend.title_fontsize": 7,
            "legend.frameon": False,
            "text.parse_math": False,
            "pdf.fonttype": 42,
            "svg.hashsalt": "fedguard",
        }


@functools.cache
def _shown() -> Any:
    """matplotlib's figure, which notebooks show even if pyplot is not in use."""
    base = extra_module("matplotlib.figure", "plot", "a figure").Figure
    return type("Picture", (base,), {"_repr_png_": _png})


def _png(figure: Any) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=144)
    return stream.getvalue()
