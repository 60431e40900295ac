"""Build the methods of a guard from objects, names, or mappings of a name and parameters."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any, TypeAlias

from ..contracts.card import Card
from ..contracts.nested import make
from ..core.errors import ParameterError
from ..ledger.memory import Ledger

#: A method's name, or a mapping with its name and parameters.
Spec: TypeAlias = str | Mapping[str, Any]


def built(value: Any, kind: str, where: str) -> Any:
    """One method: the value itself, or built from a name or a mapping.

    Args:
        value: an object, a name, ``"module:Class"``, or ``{"name": …, parameter: …}``.
        kind: a key of ``fedguard.contracts.registry.REGISTRIES``.
        where: the argument's name, for messages.

    Raises:
        ParameterError: it is not a method of this kind, is a class instead of an instance, or has no card.
        RegistryError: the name is unknown.
    """
    if inspect.isclass(value):
        raise ParameterError(
            f"{where}: {value.__name__} is a class; give an instance, {value.__name__}(…), or its name"
        )
    method = make(value, kind, where)
    if not isinstance(getattr(method, "card", None), Card):
        raise ParameterError(
            f'{where}: {type(method).__name__} has no card; write `card = Card("name", "what it does", '
            '"FedGuard")` in its class'
        )
    return method


def several(value: Any, kind: str, where: str) -> list[Any]:
    """A list of methods, from one method or a sequence of them."""
    single = isinstance(value, str | Mapping) or not hasattr(value, "__iter__")
    return [built(item, kind, where) for item in ([value] if single or inspect.isclass(value) else value)]


def ledger_of(value: Any) -> Ledger:
    """The ledger itself, or a new one in memory for None.

    Raises:
        ParameterError: it is not a ledger.
    """
    if value is None:
        return Ledger()
    if not isinstance(value, Ledger):
        raise ParameterError(
            f"ledger: {value!r} is not a ledger; give Ledger(), or SQLiteLedger(path) for one in a file"
        )
    return value
