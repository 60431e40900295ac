"""From a cell's settings to live objects."""

from __future__ import annotations

import inspect
from typing import Any

from ..aggregator import Aggregator
from ..attack import Attack
from ..guard import Guard
from ..registry import Registry, aggregators, attacks, detectors, policies
from .settings import Cell, Spec


def build_attack(cell: Cell) -> Attack:
    """The cell's attack."""
    return attacks.make(cell.attack.name, **cell.attack.params)


def build_guard(cell: Cell) -> Guard:
    """The cell's defence. Methods that take ``num_malicious`` are told the cell's assumption."""
    defense = cell.defense
    policy = defense.policy or Spec(name="exclude" if defense.detector else "observe")
    return Guard(
        [_make_told(detectors, spec, cell) for spec in defense.detector],
        policies.make(policy.name, **policy.params),
        build_aggregator(cell),
    )


def build_aggregator(cell: Cell) -> Aggregator:
    """The cell's aggregation rule."""
    aggregator: Aggregator = _make_told(aggregators, cell.defense.aggregator, cell)
    return aggregator


def _make_told(registry: Registry[Any], spec: Spec, cell: Cell) -> Any:
    params = spec.params
    if "num_malicious" in inspect.signature(registry.get(spec.name)).parameters:
        params.setdefault("num_malicious", cell.assumed_per_round)
    return registry.make(spec.name, **params)
