"""Suites: a federation, and the attacks and defenses to combine on it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from ...core.errors import ParameterError
from ...core.params import nearest
from ...simulation.settings import (
    AttackSpec,
    Cell,
    Defense,
    Mode,
    Settings,
)
from ...simulation.specs import ShortAttack
from .limits import MAX_SEEDS, Label, folder_name


def _labeled(value: Any) -> Any:
    """A list of specs as a mapping label → spec; the label is ``label``, else the (first) method's name."""
    if not isinstance(value, list):
        return value
    result: dict[str, Any] = {}
    for item in value:
        label = _label(item)
        if label is None:
            raise ValueError(f"cannot read {item!r}: write a name, or a mapping with a name")
        if isinstance(item, Mapping):
            item = {k: v for k, v in item.items() if k != "label"}
        if label in result:
            raise ValueError(f"the label {label!r} is used twice; give each entry a `label`")
        result[label] = item
    return result


def _label(item: Any) -> str | None:
    """The default label of a list entry; None if it has no name."""
    if isinstance(item, Mapping):
        parts = (item.get(key) for key in ("detector", "name", "aggregator", "stages"))
        first = next(filter(None, parts), "none")
        first = first[0] if isinstance(first, list) else first
        item = item.get("label") or (first.get("name") if isinstance(first, Mapping) else first)
    return item if isinstance(item, str) else None


def _defense(value: Any) -> Any:
    return {"detector": [] if value == "none" else value} if isinstance(value, str) else value


ShortDefense = Annotated[Defense, BeforeValidator(_defense)]


class Suite(Settings):
    """A suite: one federation, attacks × defenses × seeds.

    Attributes:
        name: the name of the results folder.
        summary: one line, for ``fedguard list suites``.
        attacks: label → attack, or a list of names or specs.
        defenses: label → defense, or a list.
        seeds: one run for each.
        mode: "closed": each defense acts in a federation of its own. "shadow": all defenses watch one
            undefended federation per attack and seed, which is far cheaper and compares them on the same
            rounds. "both" does both. "recorded" goes with ``recording``, which sets it.
        grid: key path → values; every combination is run, for example {partition.beta: [0.1, 1.0],
            attacks.lie.knowledge: [full, partial]}. A setting of the federation that is given as a list
            (``malicious: [4, 8]``) is moved here.
        only: run only what matches one of these, for example {attack: lie, malicious: 8}. The keys are
            attack, defense, seed, mode and the grid's paths; several values are alternatives.
        exclude: skip what matches one of these.
        names: label → its name in tables for papers, figures and the report; may be changed after the runs.
        search: key path → what ``fedguard tune`` searches: "LOW:HIGH", "log:LOW:HIGH" or a list, for
            example {attacks.lie.z: "0.1:3.0"}; ``fedguard evaluate`` ignores it.
        anchors: a place for YAML anchors; ignored.
        parallel: "cells" runs several cells at a time, one process each; "clients" runs one cell at a
            time and spreads its clients over the processes (for few, heavy cells). The results are
            identical either way.
    """

    name: Annotated[str, AfterValidator(folder_name)] = "suite"
    summary: str = ""
    attacks: Annotated[dict[Label, ShortAttack], BeforeValidator(_labeled)] = Field(
        {"none": AttackSpec(name="none")}
    )
    defenses: Annotated[dict[Label, ShortDefense], BeforeValidator(_labeled)] = Field({"none": Defense()})
    seeds: list[int] = Field([0], min_length=1, max_length=MAX_SEEDS)
    mode: Literal["closed", "shadow", "both", "recorded"] = "closed"
    grid: dict[str, Annotated[list[Any], Field(min_length=1)]] = Field(default_factory=dict)
    only: list[dict[str, Any]] = Field(default_factory=list)
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    names: dict[str, str] = Field(default_factory=dict, exclude=True)
    search: dict[str, Any] = Field(default_factory=dict, exclude=True)
    anchors: Any = Field(None, exclude=True)
    parallel: Literal["cells", "clients"] = "cells"

    @model_validator(mode="after")
    def _recorded_mode(self) -> Suite:
        if self.mode == "recorded" and self.recording is None:
            raise ValueError("mode 'recorded' needs a `recording`")
        return self

    def cells(self) -> list[Cell]:
        """All cells to run, in the suite's order: grid, mode, attack, defense, seed."""
        wanted = [c for c in self.all_cells() if not self.only or any(matches(c, m) for m in self.only)]
        return [c for c in wanted if not any(matches(c, m) for m in self.exclude)]

    def all_cells(self) -> list[Cell]:
        """All cells before ``only`` and ``exclude``; shadow mode skips defenses without a detector."""
        modes: tuple[Mode, ...] = ("closed", "shadow") if self.mode == "both" else (self.mode,)
        return [
            Cell(
                **{k: getattr(variant, k) for k in Settings.model_fields},
                attack_label=a,
                attack=attack,
                defense_label=d,
                defense=defense,
                mode=mode,
                seed=seed,
                point=point,
            )
            for point, variant in self.points()
            for mode in modes
            for a, attack in variant.attacks.items()
            for d, defense in variant.defenses.items()
            if mode == "closed" or (defense.detector and defense.flcert is None)
            for seed in self.seeds
        ]

    def points(self) -> list[tuple[dict[str, Any], Suite]]:
        """Every point of the grid, with the suite at that point."""
        if not self.grid:
            return [({}, self)]
        plain = self.model_dump(exclude={"grid"})
        return [
            (point := dict(zip(self.grid, values, strict=True)), Suite(**with_values(plain, point)))
            for values in itertools.product(*self.grid.values())
        ]


def with_values(data: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of plain settings with some key paths set.

    In lists (detectors, stages) a key is a position, from 0. It may be left out if the list has one entry:
    ``defenses.krum.detector.select``.

    Raises:
        ParameterError: a path does not exist.
    """
    result = copy.deepcopy(data)
    for path, value in values.items():
        *way, last = path.split(".")
        target: Any = result
        for key in way:
            target = _below(target, key)
        target = _only_one(target)
        if not isinstance(target, dict) or (not way and last not in result):
            raise ParameterError(f"there is no {path}{nearest(way[0] if way else last, result)}")
        target[last] = copy.deepcopy(value)
    return result


def _below(target: Any, key: str) -> Any:
    """The value under a key; None if there is none."""
    if isinstance(target, list) and key.isdecimal():
        return target[int(key)] if int(key) < len(target) else None
    target = _only_one(target)
    return target.get(key) if isinstance(target, dict) else None


def _only_one(target: Any) -> Any:
    return target[0] if isinstance(target, list) and len(target) == 1 else target


def matches(cell: Cell, pattern: dict[str, Any]) -> bool:
    """Whether a cell has all the values of a pattern; a list means any of its values.

    Raises:
        ParameterError: the pattern has a key that cells do not have.
    """
    known = {
        "attack": cell.attack_label,
        "defense": cell.defense_label,
        "seed": cell.seed,
        "mode": cell.mode,
        **cell.point,
    }
    unknown = [key for key in pattern if key not in known]
    if unknown:
        hint = f"{nearest(unknown[0], known)} (known: {', '.join(known)})"
        raise ParameterError(f"cells cannot be matched by {unknown[0]!r}{hint}")
    return all(
        known[key] in value if isinstance(value, list) else known[key] == value
        for key, value in pattern.items()
    )


def resolved(suite: Suite) -> Suite:
    """The same suite with every method's defaults filled in.

    ``num_malicious`` of the defenses is filled in too, unless there is a grid, whose points may differ in
    it. The attack of a recording stays as it is.
    """
    from ...simulation.build import resolve_attack, resolve_defense  # they import torch

    attacks = suite.attacks
    if suite.recording is None:
        attacks = {label: resolve_attack(spec, suite) for label, spec in attacks.items()}
    return suite.model_copy(
        update={
            "assumed_malicious": suite.assumed_malicious if suite.grid else suite.assumed,
            "attacks": attacks,
            "defenses": {label: resolve_defense(d, suite) for label, d in suite.defenses.items()},
        }
    )


def spelled_out(suite: Suite) -> str:
    """A suite as YAML, every default filled in."""
    return yaml.safe_dump(resolved(suite).model_dump(mode="json"), sort_keys=False, allow_unicode=True)
