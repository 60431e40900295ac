"""The JSON schema of a suite, with every registered method and its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

from ...contracts.local_training import LocalTraining
from ...contracts.registry import REGISTRIES
from ...core.docstrings import described
from ...core.params import params_model
from ...simulation.datasets import datasets
from ...simulation.models import models
from ...simulation.partitions import partitions
from ...simulation.parts import Parts
from .suite import Suite


def suite_schema() -> dict[str, Any]:
    """A draft 2020-12 schema, with which editors complete and check suites."""
    schema = Suite.model_json_schema()
    choices = {kind: _methods(kind) for kind in ("detectors", "attacks", "aggregators", "policies")}
    definitions = schema["$defs"]
    definitions.update(choices)
    for attack in definitions["attacks"]["anyOf"][1:-2]:  # those with a name of ours
        attack["properties"].update(schedule=_ref("Schedule"), victims=_ref("Victims"))
    definitions["datasets"] = _parts(datasets)
    definitions["partitions"] = _parts(partitions)
    definitions["models"] = _parts(models)
    fields, defense = schema["properties"], definitions["Defense"]["properties"]
    fields["data"] = _ref("datasets")
    fields["partition"] = _ref("partitions")
    fields["model"] = _ref("models")
    fields["attacks"] = _listed(_ref("attacks"))
    fields["defenses"] = _listed({"anyOf": [{"type": "string"}, {"$ref": "#/$defs/Defense"}]})
    defense["detector"] = {"anyOf": [_ref("detectors"), {"type": "array", "items": _ref("detectors")}]}
    defense["policy"] = _ref("policies")
    defense["aggregator"] = _ref("aggregators")
    defense["label"] = {"type": "string"}
    training = definitions["TrainingSettings"]["properties"]
    for name in ("optimizer", "scheduler", "loss"):
        training[name]["anyOf"] = [{"type": ["string", "null"]}, _ref("Spec")]
        training[name].pop("$ref", None)
    training["augment"] = {"anyOf": [{"type": "string"}, _ref("Spec"), _specs()]}
    for part in (schema, *definitions.values()):
        _describe(part, part.get("description", ""))
    _describe(definitions["TrainingSettings"], inspect.getdoc(LocalTraining) or "")
    for base in Suite.__mro__:
        _describe(schema, inspect.getdoc(base) or "")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "FedGuard suite", **schema}


def _describe(part: dict[str, Any], docstring: str) -> None:
    """Describe keys without a description by the section "Attributes" of a docstring."""
    _, _, section = docstring.partition("Attributes:\n")
    for name, text in re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section, re.MULTILINE):
        if name in part.get("properties", {}):
            part["properties"][name].setdefault("description", " ".join(text.split()))


def _methods(kind: str) -> dict[str, Any]:
    registry = REGISTRIES[kind]
    return _open(_named({name: _params(registry.get(name)) for name in registry.names()}))


def _parts(parts: Parts) -> dict[str, Any]:
    return _open(_named({name: _params(parts.get(name), parts.offers) for name in parts.names()}))


def _open(named: dict[str, Any]) -> dict[str, Any]:
    """Also allow ``module:Class`` and ``library:NAME``, with any parameters."""
    named["anyOf"].append({"type": "string", "pattern": ":"})
    named["anyOf"].append({"type": "object", "properties": {"name": {"type": "string", "pattern": ":"}}})
    return named


def _named(params: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A bare name, or a mapping of the name and its parameters."""
    objects = [
        {
            "type": "object",
            "properties": {"name": {"const": name}, "label": {"type": "string"}, **properties},
            "required": ["name"],
            "additionalProperties": False,
        }
        for name, properties in params.items()
    ]
    return {"anyOf": [{"enum": list(params)}, *objects]}


def _params(function: Callable[..., Any], omit: frozenset[str] = frozenset()) -> dict[str, Any]:
    properties: dict[str, Any] = params_model(function, omit).model_json_schema().get("properties", {})
    for name, text in described(function).items():
        if name in properties:
            properties[name].setdefault("description", text)
    return properties


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/$defs/{name}"}


def _specs() -> dict[str, Any]:
    return {"type": "array", "items": {"anyOf": [{"type": "string"}, _ref("Spec")]}}


def _listed(item: dict[str, Any]) -> dict[str, Any]:
    """Several entries: a list, or a mapping from labels."""
    return {"anyOf": [{"type": "array", "items": item}, {"type": "object", "additionalProperties": item}]}
