"""The space of a search: one axis per parameter, from the command line or a suite's `search`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...core.errors import ParameterError
from ...core.yaml_values import parse
from ..suites.source import short

#: Significant digits of a number that is tried, so that a suite that was found can be read and retyped; a
#: range that is narrow for its size takes more.
DIGITS = 4
#: The most values of one axis of a grid; a bound for whole-number ranges, too.
MOST = 10_000

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"(log:)?({_NUMBER}):({_NUMBER})")
_WHOLE = re.compile(r"[-+]?\d+")


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, both included.

    Attributes:
        path: the key path of the parameter in the suite.
        low: the lower end.
        high: the upper end.
        log: whether the logarithm is searched evenly.
        whole: whether only whole numbers are tried.
    """

    path: str
    low: float
    high: float
    log: bool = False
    whole: bool = False

    @property
    def most(self) -> int:
        """How many different values there are, at most :data:`MOST`."""
        return min(MOST, int(self.high) - int(self.low) + 1) if self.whole else MOST

    @property
    def text(self) -> str:
        """The axis in words."""
        ends = f"{self._value(self.low)} to {self._value(self.high)}"
        return ends + (", whole numbers" if self.whole else "") + (", logarithmic" if self.log else "")

    def suggest(self, trial: Any) -> Any:
        """The value that an Optuna trial is to try."""
        if self.whole:
            return trial.suggest_int(self.path, int(self.low), int(self.high), log=self.log)
        return self._value(trial.suggest_float(self.path, self.low, self.high, log=self.log))

    def at(self, place: float) -> Any:
        """What Optuna knows the value at a place by; 0 is the lower end and 1 the upper one."""
        found = min(max(self._at(place), self.low), self.high)
        return self._value(found) if self.whole else found

    def levels(self, count: int) -> list[Any]:
        """``count`` values at equal distances with both ends, in the logarithm if ``log``; one: the middle.

        Whole numbers are rounded, and equal ones are given once.
        """
        places = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
        found = [self._value(self._at(place)) for place in places]
        return list(dict.fromkeys(found))

    def _at(self, place: float) -> float:
        if self.log:
            low, high = math.log(self.low), math.log(self.high)
            return math.exp(low + place * (high - low))
        return self.low + place * (self.high - self.low)

    def _value(self, number: float) -> Any:
        if self.whole:
            return int(min(max(round(number), self.low), self.high))
        more = math.floor(math.log10(max(abs(self.low), abs(self.high)) / (self.high - self.low)))
        return min(max(float(f"{number:.{DIGITS + max(0, more)}g}"), self.low), self.high)


@dataclass(frozen=True)
class Choice:
    """A few values, in no order.

    Attributes:
        path: the key path of the parameter in the suite.
        values: the values, anything that YAML holds.
    """

    path: str
    values: tuple[Any, ...]

    @property
    def most(self) -> int:
        """How many values there are."""
        return len(self.values)

    @property
    def text(self) -> str:
        """The axis in words."""
        return f"one of {', '.join(json.dumps(value) for value in self.values)}"

    def suggest(self, trial: Any) -> Any:
        """The value that an Optuna trial is to try."""
        named = {json.dumps(value, sort_keys=True): value for value in self.values}
        return named[trial.suggest_categorical(self.path, list(named))]

    def at(self, place: float) -> Any:
        """What Optuna knows the value at a place by; from 0 to below 1, in the order of the values."""
        return json.dumps(self.values[int(place * len(self.values))], sort_keys=True)

    def levels(self, count: int) -> list[Any]:
        """The first ``count`` values."""
        return list(self.values[:count])


Axis = Range | Choice


def axis_of(path: str, value: Any) -> Axis:
    """An axis from what a user wrote.

    Args:
        path: the key path of the parameter.
        value: ``"0.1:3.0"``, ``"log:1e-3:1"`` (ends without a point or an exponent mean whole numbers), or a
            list of values.

    Raises:
        ParameterError: none of these, or an empty range.
    """
    if isinstance(value, list | tuple):
        return _choice(path, value)
    found = _RANGE.fullmatch(value.replace(" ", "")) if isinstance(value, str) else None
    if not found:
        raise ParameterError(
            f"search {path}: cannot read {short(repr(value))}; write LOW:HIGH, log:LOW:HIGH or [one, two]"
        )
    log, low, high = found[1] is not None, float(found[2]), float(found[3])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ParameterError(f"search {path}: {value!r} is not a range; the first end is the lower one")
    if log and low <= 0:
        raise ParameterError(f"search {path}: {value!r}: a logarithmic range begins above 0")
    whole = bool(_WHOLE.fullmatch(found[2]) and _WHOLE.fullmatch(found[3]))
    return Range(path, low, high, log, whole)


def _choice(path: str, values: Sequence[Any]) -> Choice:
    different = {json.dumps(value, sort_keys=True, default=str) for value in values}
    if len(values) < 2 or len(different) < len(values):
        raise ParameterError(f"search {path}: give at least two values, each once, got {short(repr(values))}")
    return Choice(path, tuple(values))


def space_of(written: Mapping[str, Any] | Sequence[str]) -> list[Axis]:
    """The axes of a search: path → value, or texts ``PATH=VALUE`` whose lists are YAML.

    Raises:
        ParameterError: see :func:`axis_of`; or a text without "=", or no axis.
    """
    if not isinstance(written, Mapping):
        named: dict[str, Any] = {}
        for text in written:
            path, equals, value = text.partition("=")
            if not (path and equals):
                raise ParameterError(f"--search {short(text)!r}: write PATH=LOW:HIGH or PATH=[one, two]")
            listed = value.lstrip().startswith("[")
            named[path] = parse(value, f"--search {short(text)!r}")[0] if listed else value
        written = named
    if not written:
        raise ParameterError(
            "nothing to search: give --search PATH=LOW:HIGH, or `search` in the suite "
            "(for example attacks.lie.z=0.1:3.0)"
        )
    return [axis_of(path, value) for path, value in written.items()]


def grid_of(axes: Sequence[Axis], size: int) -> list[dict[str, Any]]:
    """The plain grid of at most ``size`` points: every axis at equally spaced levels, both ends included.

    The axis with the fewest levels gets the next one as long as the product stays within ``size``; among
    equal ones, the first. An axis with one level takes the middle of its range, or its first value.
    """
    counts = [1] * len(axes)
    growing = True
    while growing:
        growing = False
        for i in sorted(range(len(axes)), key=lambda i: counts[i]):
            more = [*counts[:i], counts[i] + 1, *counts[i + 1 :]]
            if counts[i] < axes[i].most and math.prod(more) <= size:
                counts, growing = more, True
                break
    points: list[dict[str, Any]] = [{}]
    for axis, count in zip(axes, counts, strict=True):
        points = [{**point, axis.path: value} for point in points for value in axis.levels(count)]
    return points
