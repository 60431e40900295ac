"""Axes: from values to pixels, with round numbers as ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Positive values that span more than this factor get a log axis.
LOG_FROM = 50.0
#: All values that span this many times as much as nine tenths of them get a symmetric log axis.
SYMLOG_FROM = 20.0


@dataclass(frozen=True)
class Scale:
    """How values are spread along an axis.

    Attributes:
        kind: "linear", "log", or "symlog" (linear around zero, logarithmic beyond).
        unit: the value beyond which symlog is logarithmic.
    """

    kind: str = "linear"
    unit: float = 1.0

    def forward(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Values to positions."""
        if self.kind == "log":
            return np.log10(values)
        if self.kind == "symlog":
            return np.sign(values) * np.log10(1 + np.abs(values) / self.unit)
        return np.asarray(values, dtype=float)

    def backward(self, places: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions to values."""
        if self.kind == "log":
            return np.asarray(10.0**places)
        if self.kind == "symlog":
            return np.sign(places) * self.unit * (10.0 ** np.abs(places) - 1)
        return np.asarray(places, dtype=float)


def scale_for(values: NDArray[np.float64]) -> Scale:
    """The simplest scale that separates the finite values."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high / low > LOG_FROM:
        return Scale("log")
    five, ninety_five = np.percentile(values, [5, 95])
    if high - low > SYMLOG_FROM * (ninety_five - five):
        middle = float(np.median(np.abs(values[values != 0]))) if (values != 0).any() else 0.0
        return Scale("symlog", middle) if middle > 0 and high > low else Scale()
    return Scale()


@dataclass(frozen=True)
class Axis:
    """A range of values along a line of pixels.

    Attributes:
        low: the value at ``start``.
        high: the value at ``end``.
        start: a pixel.
        end: a pixel; before ``start`` on vertical axes.
        scale: how values are spread.
    """

    low: float
    high: float
    start: float
    end: float
    scale: Scale = Scale()

    def at(self, value: float) -> float:
        """The pixel of a value."""
        low, high, place = self.scale.forward(np.array([self.low, self.high, value], dtype=float))
        return float(self.start + (self.end - self.start) * (place - low) / (high - low))

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Round values in the range, with their text."""
        powers = [] if self.scale.kind == "linear" else _powers(self.low, self.high, self.scale)
        if len(powers) < 2:
            return [(value, f"{value:.6g}") for value in nice_ticks(self.low, self.high)]
        keep = max(1, -(-len(powers) // 5))
        return [(value, power_text(value)) for value in powers[::keep]]


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _powers(low: float, high: float, scale: Scale) -> list[float]:
    if scale.kind == "log":
        exponents = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
        return [10.0**k for k in exponents]
    largest = max(abs(low), abs(high))
    first, last = math.ceil(math.log10(scale.unit)), math.floor(math.log10(largest) + 1e-9)
    step = max(1, -(-(last - first + 1) // 3))
    sizes = [10.0**k for k in range(first, last + 1, step)]
    return [v for v in (*(-s for s in reversed(sizes)), 0.0, *sizes) if low <= v <= high]


def power_text(value: float) -> str:
    """A number, large and small ones as powers of ten."""
    if value == 0 or 1e-3 <= abs(value) <= 1e4:
        return f"{value:g}"
    digits = str(math.floor(math.log10(abs(value)) + 1e-9))
    return f"{'−' if value < 0 else ''}10{digits.translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def path(points: Sequence[tuple[float, float]], x: Axis, y: Axis) -> str:
    """The ``d`` of an SVG path through points; NaN interrupts the line."""
    parts, pen_up = [], True
    for a, b in points:
        if math.isnan(a) or math.isnan(b):
            pen_up = True
            continue
        parts.append(f"{'M' if pen_up else 'L'}{pixel(x.at(a))} {pixel(y.at(b))}")
        pen_up = False
    return "".join(parts)


def pixel(value: float) -> str:
    """A length for SVG, to one decimal."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text
