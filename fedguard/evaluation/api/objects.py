"""From Python values to a suite: plain settings, and a table of the objects that they name.

Every class, function and instance gets a name, ``given:NAME@FINGERPRINT``, that the suite's cells refer to.
The fingerprint makes cells of different objects different cells, also for caches and on resuming.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel
from torch import nn

from ...contracts.aggregator import Aggregator
from ...contracts.card import Method
from ...contracts.detector import Detector
from ...contracts.registry import make_stage
from ...contracts.stage import Stage
from ...core.errors import ConfigError, FedGuardError
from ...core.named_code import GIVEN_PREFIX
from ...guard import Guard
from ...simulation.datasets import Dataset
from ...simulation.datasets.given import as_dataset
from ...simulation.settings import Defense
from ..suites.source import GIVEN_FROM_PYTHON, Source, key_path, short
from .fingerprint import fingerprint

#: Settings whose keys are set one by one, so that the suite's other keys stay.
_GROUPS = ("training", "server")


class Objects:
    """Turns Python values into plain settings and collects the objects among them.

    Attributes:
        table: ``NAME@FINGERPRINT`` → object, for :func:`fedguard.core.named_code.giving`.
    """

    def __init__(self) -> None:
        self.table: dict[str, Any] = {}

    def apply(self, source: Source, settings: Mapping[str, Any]) -> None:
        """Set settings of a suite, each by its key path; a setting replaces the axis of the grid of its name.

        Raises:
            ConfigError: a value is of no use in a suite; names the key path.
        """
        for key, given in settings.items():
            value = self.setting(key, given)
            path = key_path(key)
            _leave_grid(source, key)
            if key in _GROUPS and isinstance(value, Mapping):
                for name, part in value.items():
                    _leave_grid(source, f"{key}.{name}")
                    source.assign((*path, name), part)
            else:
                source.assign(path, value)

    def setting(self, key: str, value: Any) -> Any:
        """The plain value of one setting of a suite."""
        if key == "data":
            return self._data(value)
        if key == "attacks":
            return self._labeled(value, key, self.plain)
        if key == "defenses":
            return self._labeled(value, key, self._defense)
        return self.plain(value, key)

    def plain(self, value: Any, where: str) -> Any:
        """A value as YAML knows it, with names in place of objects.

        Raises:
            ConfigError: it is neither plain data nor an object that a suite can name.
        """
        if value is None or isinstance(value, str | bool | int | float):
            return value
        if isinstance(value, np.generic | np.ndarray):
            return self.plain(value.tolist(), where)
        if isinstance(value, Path):
            return str(value)
        if isinstance(value, BaseModel):
            return value.model_dump(mode="json", exclude_unset=True)
        if isinstance(value, Mapping):
            return {key: self.plain(item, f"{where}.{key}") for key, item in value.items()}
        if isinstance(value, list | tuple | range):
            return [self.plain(item, f"{where}.{i}") for i, item in enumerate(value)]
        if isinstance(value, Method | nn.Module | Dataset) or callable(value):
            return self.name(value)
        raise ConfigError(
            f"{GIVEN_FROM_PYTHON}: {where}: {short(repr(value))} is a {type(value).__name__}; give a name, a "
            "class, a function, a method, a model or plain data"
        )

    def name(self, value: Any) -> str:
        """The name by which a suite refers to an object; equal objects share it."""
        plain = re.sub(r"\W+", "_", _title(value)).strip("_") or "object"
        mark, name, number = fingerprint(value), plain, 1
        while any(key.startswith(f"{name}@") and key != f"{name}@{mark}" for key in self.table):
            number += 1
            name = f"{plain}_{number}"
        self.table.setdefault(f"{name}@{mark}", value)
        return f"{GIVEN_PREFIX}:{name}@{mark}"

    def _data(self, value: Any) -> Any:
        if isinstance(value, str | Dataset) or (isinstance(value, Mapping) and "name" in value):
            return self.plain(value, "data")
        if isinstance(value, list) and all(isinstance(v, str | Dataset | Mapping) for v in value):
            return [self._data(item) for item in value]  # an axis of the grid
        if callable(value):
            return self.name(value)
        return self.name(_converted(value))

    def _labeled(self, value: Any, key: str, entry: Any) -> Any:
        """Attacks or defenses as a mapping label → spec."""
        result: dict[str, Any] = {}
        for label, item in _entries(value, key):
            made = entry(item, f"{key}.{label or ''}".rstrip("."))
            label = label or _label_of(item, made)
            if label in result and isinstance(item, str | Mapping):
                raise ConfigError(
                    f"{GIVEN_FROM_PYTHON}: {key}: {label!r} is there twice; label them: {{'a': …, 'b': …}}"
                )
            number, free = 1, label
            while free in result:
                number += 1
                free = f"{label}_{number}"
            result[free] = made
        return result

    def _defense(self, value: Any, where: str) -> Any:
        """A defense from what stands for one: a detector, a guard, an aggregator, a stage, or a mapping."""
        if isinstance(value, Guard):
            return self.plain(_parts_of(value, where), where)
        if isinstance(value, Mapping) and "name" in value:
            return {"detector": self.plain(value, where)}
        if isinstance(value, str) or not (isinstance(value, type | Method | list | tuple)):
            return self.plain(value, where)
        kind = value if isinstance(value, type) else type(value)
        for base, name in ((Detector, "detector"), (Aggregator, "aggregator"), (Stage, "stages")):
            if issubclass(kind, base):
                return {name: self.plain(value, where)}
        return {"detector": self.plain(value, where)}


def _title(value: Any) -> str:
    if isinstance(value, Dataset):
        return value.name
    found = value if isinstance(value, type) or not isinstance(value, Method | nn.Module) else type(value)
    return str(getattr(found, "__name__", type(value).__name__))


def _entries(value: Any, key: str) -> Iterable[tuple[str | None, Any]]:
    """(label or None, entry) of everything that is given as attacks or defenses."""
    fields = {"name", "label"} | (set(Defense.model_fields) if key == "defenses" else set())
    if isinstance(value, Mapping):
        if not fields & value.keys():
            yield from ((str(label), item) for label, item in value.items())
            return
        item = {k: v for k, v in value.items() if k != "label"}
        yield value.get("label"), item
    elif isinstance(value, list | tuple):
        for item in value:
            if isinstance(item, list | tuple):
                yield None, item
            else:
                yield from _entries(item, key)
    else:
        yield None, value


def _label_of(item: Any, made: Any) -> str:
    """The label of an entry without one: the name of its (first) method."""
    if isinstance(item, Mapping):
        parts = (item.get(key) for key in ("detector", "name", "aggregator", "stages"))
        item = next(filter(None, parts), "none")
    while isinstance(item, list | tuple) and item:
        item = item[0]
    if isinstance(item, Mapping):
        item = item.get("name", "none")
    if isinstance(item, Guard):
        return " + ".join(item.detectors) or item.aggregator.name
    if isinstance(item, str):
        return item
    card = getattr(item, "card", None)
    return str(getattr(card, "name", None) or _title(item))


def _parts_of(guard: Guard, where: str) -> dict[str, Any]:
    """A guard's parts as a defense."""
    plain = Guard().ledger
    if type(guard.ledger) is not type(plain) or guard.ledger.keep != plain.keep or guard.observers:
        raise ConfigError(
            f"{GIVEN_FROM_PYTHON}: {where}: a guard's own ledger and observers are of no use in a suite; "
            "leave them out"
        )
    stages, aggregator = guard.aggregation()[:-1], guard.aggregation()[-1]
    if guard.claim_limit is not None:
        stages = [make_stage("count_clipping", factor=guard.claim_limit), *stages]
    return {
        "detector": list(guard.detectors.values()),
        "policy": guard.policy,
        "stages": stages,
        "aggregator": aggregator,
        "on_too_few": guard.on_too_few,
    }


def _converted(value: Any) -> Dataset:
    """A data set from arrays, a torch Dataset and the like."""
    name = "arrays" if isinstance(value, tuple | list | Mapping) else type(value).__name__
    try:
        found: Dataset = as_dataset(value, name)
    except FedGuardError as error:
        raise ConfigError(f"{GIVEN_FROM_PYTHON}: data: {error}") from error
    return found


def _leave_grid(source: Source, key: str) -> None:
    """Remove the axes of the grid below a setting that is set from Python."""
    grid = source.data.get("grid")
    if isinstance(grid, dict):
        for path in [path for path in grid if f"{path}.".startswith(f"{key}.")]:
            del grid[path]
