"""Building attacks and defenses from a cell's settings."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from ..contracts.aggregator import Aggregator
from ..contracts.attack import Attack
from ..contracts.nested import change_nested
from ..contracts.registry import REGISTRIES
from ..core.deprecation import current
from ..core.errors import ParameterError
from ..guard import Guard
from .settings import AttackSpec, Cell, Defense, Settings, Spec

#: The kinds of methods that get the assumed number of malicious clients; attackers know the true one.
TOLD = ("detectors", "stages", "aggregators")


def build_attack(cell: Cell) -> Attack:
    """The cell's attack. Defenses among its parameters get the cell's assumed number of malicious clients.

    Raises:
        ParameterError: victims of an attack that is not passive.
    """
    attack: Attack = _make("attacks", cell.attack, cell)
    if cell.attack.victims is not None and attack.kind != "passive":
        raise ParameterError(f"attack {attack.name} reconstructs no data; leave `victims` out")
    return attack


def build_guard(cell: Cell) -> Guard:
    """The cell's defense. Methods with ``num_malicious`` get the cell's assumed number."""
    defense = cell.defense
    return Guard(
        [_make("detectors", spec, cell) for spec in defense.detector],
        _make("policies", _policy(defense), cell),
        build_aggregator(cell),
        stages=[_make("stages", spec, cell) for spec in defense.stages],
        on_too_few=defense.on_too_few,
    )


def build_aggregator(cell: Cell) -> Aggregator:
    """The cell's aggregation rule; under FedNova, its mean instead of the plain one.

    Raises:
        ParameterError: FedNova with a rule that does not normalize by steps.
    """
    spec = cell.defense.aggregator
    if cell.training.algorithm == "fednova" and spec.name != "fednova":
        if spec != Spec(name="mean"):
            raise ParameterError(
                f"training.algorithm fednova is a way to aggregate, and so is {spec.name}; leave one out"
            )
        spec = Spec(name="fednova")
    aggregator: Aggregator = _make("aggregators", spec, cell)
    return aggregator


def resolve_defense(defense: Defense, settings: Settings) -> Defense:
    """The same defense with every default and every ``num_malicious`` filled in.

    ``num_malicious`` stays open under FLCert, where each group gets its own share, and in a suite with a
    grid, whose points may differ in it.
    """
    told = None if defense.flcert or getattr(settings, "grid", None) else settings.assumed_per_round
    return Defense(
        on_too_few=defense.on_too_few,
        flcert=defense.flcert,
        detector=[_resolved("detectors", spec, told) for spec in defense.detector],
        policy=_resolved("policies", _policy(defense), told),
        stages=[_resolved("stages", spec, told) for spec in defense.stages],
        aggregator=_resolved("aggregators", defense.aggregator, told),
    )


def resolve_attack(attack: AttackSpec, settings: Settings) -> AttackSpec:
    """The same attack with every default filled in."""
    told = None if getattr(settings, "grid", None) else settings.assumed_per_round
    spec = _resolved("attacks", attack, told)
    return AttackSpec(name=spec.name, **attack.beside, **spec.params)


def _make(kind: str, spec: Spec, settings: Settings) -> Any:
    params = _told(kind, spec.name, spec.params, settings.assumed_per_round)
    return REGISTRIES[kind].make(spec.name, **params)


def _resolved(kind: str, spec: Spec, told: int | None) -> Spec:
    return Spec(name=spec.name, **_spelled_out(kind, spec.name, spec.params, told))


def _told(kind: str, name: str, params: dict[str, Any], told: int) -> dict[str, Any]:
    """The parameters of a method, with ``num_malicious`` of it and of methods nested in it."""
    cls = REGISTRIES[kind].get(name)
    params = current(cls, params)
    if _takes_number(kind, cls):
        params = {"num_malicious": told, **params}
    return change_nested(cls, name, params, functools.partial(_told, told=told))


def _spelled_out(kind: str, name: str, params: dict[str, Any], told: int | None) -> dict[str, Any]:
    """The parameters of a method and of methods nested in it, with defaults and ``num_malicious``."""
    cls = REGISTRIES[kind].get(name)
    params = current(cls, params)
    known = {
        p.name: p.default for p in inspect.signature(cls).parameters.values() if p.default is not p.empty
    }
    if _takes_number(kind, cls):
        known.pop("num_malicious", None)
        if told is not None:
            known["num_malicious"] = told
    return change_nested(cls, name, {**known, **params}, functools.partial(_spelled_out, told=told))


def _takes_number(kind: str, cls: type[Any]) -> bool:
    return kind in TOLD and "num_malicious" in inspect.signature(cls).parameters


def _policy(defense: Defense) -> Spec:
    return defense.policy or Spec(name="exclude" if defense.detector else "observe")
