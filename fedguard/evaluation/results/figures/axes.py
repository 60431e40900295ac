"""Axes: from values to places, with round numbers as ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
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
    """A range of values, or of names at 0, 1, ….

    Attributes:
        label: what the values are.
        low: the value at its start: left, or below.
        high: the value at its end.
        scale: how values are spread.
        whole: only whole numbers are ticks.
        unsigned: ticks have no sign.
        names: of the places 0, 1, …, instead of ticks.
        strong: which of them stand out.
        blank: no ticks: the values mean nothing by themselves.
    """

    label: str
    low: float
    high: float
    scale: Scale = Scale()
    whole: bool = False
    unsigned: bool = False
    names: tuple[str, ...] = ()
    strong: frozenset[int] = frozenset()
    blank: bool = False

    def place(self, value: float) -> float:
        """Where a value lies: 0 at the start, 1 at the end."""
        low, high, place = self.scale.forward(np.array([self.low, self.high, value], dtype=float))
        return float((place - low) / (high - low))

    def ticks(self, most: int = 5) -> list[tuple[float, str]]:
        """About so many round values in the range, or all places with names, with their text."""
        if self.names or self.blank:
            return [(float(i), name) for i, name in enumerate(self.names)]
        powers = [] if self.scale.kind == "linear" else _powers(self.low, self.high, self.scale)
        if len(powers) < 2:
            found = nice_ticks(self.low, self.high, most, 1.0 if self.whole else 0.0)
            return [(value, f"{abs(value) if self.unsigned else value:.6g}") for value in found]
        keep = max(1, -(-len(powers) // most))
        return [(value, power_text(value)) for value in powers[::keep]]


def across(label: str, names: Sequence[str]) -> Axis:
    """Names from left to right."""
    return Axis(label, -0.5, len(names) - 0.5, names=tuple(names))


def down(label: str, names: Sequence[str], strong: Iterable[int] = ()) -> Axis:
    """Names from the top to the bottom."""
    return Axis(label, len(names) - 0.5, -0.5, names=tuple(names), strong=frozenset(strong))


def nice_ticks(low: float, high: float, count: int = 5, least: float = 0.0) -> list[float]:
    """About ``count`` multiples of 1, 2 or 5 times a power of ten, at least ``least`` apart."""
    if not high > low:
        return [low]
    step = 10 ** math.floor(math.log10((high - low) / count))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= count + 0.5)
    step = max(step, least)
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
