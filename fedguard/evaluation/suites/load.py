"""Reading a suite from a file, with overrides; errors name file, line and key path."""

from __future__ import annotations

import math
from pathlib import Path

from pydantic import BaseModel, ValidationError

from ...core.errors import ConfigError, ParameterError
from ...core.params import nearest
from ...simulation.schedule import Schedule
from ...simulation.settings import (
    Defense,
    ServerSettings,
    Settings,
    Spec,
    TrainingSettings,
)
from ...simulation.victims import Victims
from .fedml import read_fedml
from .limits import MAX_POINTS, MAX_RUNS
from .source import Source, read, short
from .suite import Suite, _label, matches, with_values


def load_suite(
    suite: str | Path,
    overrides: list[str] | None = None,
    allow_code: bool = True,
    allow_recorded_code: bool = False,
    fedml: bool = False,
) -> tuple[Suite, Source]:
    """Read a suite by path or shipped name, apply ``a.b=c`` overrides, and check its form.

    Args:
        suite: the path or the name.
        overrides: settings to change.
        allow_code: False refuses a file that names methods by "module:Class"; overrides always may.
        allow_recorded_code: whether a recording that the suite is on may name its model and data so.
        fedml: the file is a configuration of FedML's.

    Raises:
        ConfigError: with file, line and key path; suggests the nearest key for a misspelled one.
    """
    source = read_fedml(str(suite)) if fedml else read_suite(str(suite))
    for assignment in overrides or []:
        source.override(assignment)
    return suite_from(source, allow_code, allow_recorded_code), source


def read_suite(suite: str) -> Source:
    """Read a suite by path or shipped name, without any check of its settings.

    Raises:
        ConfigError: no such suite, not valid YAML, or no mapping.
    """
    source = read(suite)
    if source.data is None:
        source.data = {}
    if not isinstance(source.data, dict):
        raise source.error((), "a suite is a mapping of settings")
    source.data.setdefault("name", Path(suite).stem)
    return source


def suite_from(source: Source, allow_code: bool = True, allow_recorded_code: bool = False) -> Suite:
    """The suite that a source describes, its form checked.

    Args:
        source: a mapping of settings, with its overrides.
        allow_code: see :func:`load_suite`.
        allow_recorded_code: likewise.

    Raises:
        ConfigError: as :func:`load_suite`.
    """
    for key in source.data:  # overrides add keys, too
        if not isinstance(key, str):
            raise source.error((key,), "a key is a word; put it in quotes if it is one")
    if not allow_code:
        source.refuse_code()
    for key in ("attacks", "defenses"):
        if isinstance(source.data.get(key), list):
            source.aliases.update({(key, _label(v) or ""): (key, i) for i, v in enumerate(source.data[key])})
    _move_lists(source)
    try:
        plan = Suite(**source.data)
    except ValidationError as error:
        raise _first_problem(error, source) from None
    _check_size(plan, source)
    _check_points(plan, source)
    if plan.recording is None:
        return plan
    from .on_recording import on_recording  # it imports torch

    return on_recording(plan, source, allow_recorded_code)


def _check_points(suite: Suite, source: Source) -> None:
    """Refuse grid paths that do not exist and patterns that cannot match."""
    plain = suite.model_dump(exclude={"grid"})
    for path, values in suite.grid.items():
        for value in values:
            try:
                Suite(**with_values(plain, {path: value}))
            except ParameterError as error:
                raise source.error(("grid", path), str(error)) from None
            except ValidationError as error:
                problem = error.errors()[0]["msg"].removeprefix("Value error, ")
                raise source.error(("grid", path), f"{problem}, got {short(repr(value))}") from None
    cells = suite.all_cells()
    for key in ("only", "exclude"):
        for i, pattern in enumerate(getattr(suite, key)):
            try:
                found = any(matches(cell, pattern) for cell in cells)
            except ParameterError as error:
                raise source.error((key, i), str(error)) from None
            if not found:
                raise source.error((key, i), f"nothing matches {pattern}")


def _move_lists(source: Source) -> None:
    """Move settings of the federation that are lists into the grid."""
    axes: list[tuple[str, ...]] = [(key,) for key in Settings.model_fields]
    # A list of augmentations is one setting.
    axes += [("training", key) for key in TrainingSettings.model_fields if key != "augment"]
    axes += [("server", key) for key in ServerSettings.model_fields]
    for path in axes:
        home = source.data if len(path) == 1 else source.data.get(path[0])
        values = home.get(path[-1]) if isinstance(home, dict) else None
        grid = source.data.setdefault("grid", {}) if isinstance(values, list) else None
        if isinstance(home, dict) and isinstance(values, list) and isinstance(grid, dict):
            grid[".".join(path)] = values
            source.aliases[("grid", ".".join(path))] = path
            home.pop(path[-1])
            if values:
                home[path[-1]] = values[0]


def _first_problem(error: ValidationError, source: Source) -> ConfigError:
    first = error.errors()[0]
    path = tuple(first["loc"])
    if first["type"] == "extra_forbidden":
        fields = _fields_at(path[:-1])
        return source.error(path, f"unknown key{nearest(str(path[-1]), fields)} (known: {', '.join(fields)})")
    if first["type"] == "missing":
        hint = "; write {name: …} and parameters beside it" if path[-1] == "name" else ""
        return source.error(path, f"this key is missing{hint}")
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    if first["type"] == "model_type":
        message = "write a name, or a mapping of a name and parameters"
    if path == ("device",):
        message = "use cpu, cuda, cuda:1 (or another number), mps or auto"
    if isinstance(given, dict | BaseModel) or path[-1:] == ("[key]",):
        about = message.partition(" ")[0]  # of several settings, the one that the message begins with
        more = (about,) if isinstance(given, dict) and about in given else ()
        return source.error((*(part for part in path if part != "[key]"), *more), message)
    return source.error(path, f"{message}, got {short(repr(given))}")


def _fields_at(path: tuple[str | int, ...]) -> list[str]:
    """The known keys at a path of a suite."""
    homes: dict[str, type[BaseModel]] = {
        "server": ServerSettings,
        "training": TrainingSettings,
        "defenses": Defense,
    }
    model = homes.get(str(path[0]), Spec) if path else Suite
    beside: dict[str, type[BaseModel]] = {"schedule": Schedule, "victims": Victims}
    if path and path[0] == "attacks":
        model = beside.get(str(path[-1]), model)
    return list(model.model_fields)


def _check_size(suite: Suite, source: Source) -> None:
    """Refuse a suite that is too large to plan; the error names the key with the most entries."""
    axes: dict[tuple[str, ...], int] = {("grid", path): len(values) for path, values in suite.grid.items()}
    points = math.prod(axes.values())
    axes |= {(key,): len(getattr(suite, key)) for key in ("attacks", "defenses", "seeds")}
    runs, longest = math.prod(axes.values()), max(axes, key=lambda path: axes[path])
    if runs > MAX_RUNS:
        advice = "make the grid smaller" if points > 1 else "give fewer"
        raise source.error(longest, f"{runs:,} runs, at most {MAX_RUNS:,} can be planned; {advice}")
    if points > MAX_POINTS:
        most = f"at most {MAX_POINTS:,} can be planned; make it smaller"
        raise source.error(longest, f"the grid has {points:,} points, {most}")
