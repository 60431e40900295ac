"""Methods as parameters of other methods: the members of an ensemble, the policy behind a gate.

A parameter annotated as :data:`DetectorSpec` (or ``list[DetectorSpec]``, or either with ``| None``) takes a
method as a suite writes it: a name, ``"module:Class"``, or a mapping of ``name`` and parameters. From Python,
it may also be an instance. :func:`make` builds it.
"""

from __future__ import annotations

import contextlib
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from ..core.errors import FedGuardError, ParameterError
from ..core.params import check_params
from .card import Method


@dataclass(frozen=True)
class Nested:
    """Marks a parameter that holds another method.

    Attributes:
        kind: the registry: a key of ``fedguard.contracts.registry.REGISTRIES``.
    """

    kind: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept names, mappings and instances; :func:`make` checks what they name."""
        return core_schema.no_info_plain_validator_function(_well_formed)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """A name, or a mapping with a name."""
        named = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        return {"anyOf": [{"type": "string"}, named]}


DetectorSpec: TypeAlias = Annotated[str | dict[str, Any], Nested("detectors")]
AttackSpec: TypeAlias = Annotated[str | dict[str, Any], Nested("attacks")]
AggregatorSpec: TypeAlias = Annotated[str | dict[str, Any], Nested("aggregators")]
PolicySpec: TypeAlias = Annotated[str | dict[str, Any], Nested("policies")]

#: (kind, name, parameters) of a nested spec → its new parameters.
Change: TypeAlias = Callable[[str, str, dict[str, Any]], dict[str, Any]]


def make(spec: Any, kind: str, where: str = "") -> Any:
    """Build a method from a spec; returns an instance unchanged.

    Args:
        spec: a name, a mapping with name and parameters, or a method.
        kind: a key of ``fedguard.contracts.registry.REGISTRIES``.
        where: the parameter that holds the spec, for messages, for example ``"ensemble: member"``.

    Raises:
        ParameterError: it is not a spec, or its parameters are wrong.
        RegistryError: the name is unknown.
    """
    from .registry import REGISTRIES  # lazy: the registry imports all contracts

    registry = REGISTRIES[kind]
    if isinstance(spec, registry.base):
        return spec
    if not _is_spec(spec):
        raise ParameterError(
            f"{where or registry.kind}: {spec!r} is not a valid {registry.kind}; write a name, or a mapping "
            "with one"
        )
    written, params = split(spec)
    with within(f"{where} {written!r}" if where else ""):
        name, params = registry.resolve(written, params)
        cls = registry.get(name)
        return cls(**check_params(cls, params, f"{registry.kind} {written}"))


def split(spec: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """The name and the parameters of a spec."""
    params = {"name": spec} if isinstance(spec, str) else dict(spec)
    return params.pop("name"), params


@contextlib.contextmanager
def within(where: str) -> Iterator[None]:
    """Prefix the message of a FedGuardError with ``where``, unless that is empty."""
    try:
        yield
    except FedGuardError as error:
        if where:
            error.args = (f"{where}: {error}",)
        raise


def nested_parameters(cls: type[Any]) -> dict[str, str]:
    """Parameters of a class that hold other methods → the kind of each."""
    hints = typing.get_type_hints(cls.__init__, include_extras=True)
    kinds = {name: _kind(hints[name]) for name in inspect.signature(cls).parameters if name in hints}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def change_nested(cls: type[Any], name: str, params: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """The parameters of a method with every nested spec changed, including those that are defaults.

    Args:
        cls: the method's class.
        name: the method's name, for messages.
        params: its parameters.
        change: see :data:`Change`. It is not applied to None and to instances.
    """
    result = dict(params)
    signature = inspect.signature(cls).parameters
    for parameter, kind in nested_parameters(cls).items():
        value = params.get(parameter, signature[parameter].default)
        if isinstance(value, list | tuple):
            where = f"{name}: {parameter.removesuffix('s')}"
            result[parameter] = [_changed(item, kind, where, change) for item in value]
        elif _is_spec(value):
            result[parameter] = _changed(value, kind, f"{name}: {parameter}", change)
    return result


def _changed(spec: Any, kind: str, where: str, change: Change) -> Any:
    if not _is_spec(spec):
        return spec
    from .registry import REGISTRIES  # lazy: the registry imports all contracts

    written, params = split(spec)
    with within(f"{where} {written!r}"):
        name, params = REGISTRIES[kind].resolve(written, params)
        return {"name": name, **change(kind, name, params)}


def _kind(hint: Any) -> str | None:
    """The kind of the first :class:`Nested` anywhere in an annotation."""
    for part in getattr(hint, "__metadata__", ()):
        if isinstance(part, Nested):
            return part.kind
    return next((kind for part in typing.get_args(hint) if (kind := _kind(part))), None)


def _is_spec(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, Mapping) and isinstance(value.get("name"), str))


def _well_formed(value: Any) -> Any:
    if isinstance(value, Method) or _is_spec(value):
        return value
    raise ValueError("write a name, or a mapping with one")
