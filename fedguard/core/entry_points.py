"""What installed packages offer under a group of entry points."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import RegistryError


def offered(group: str, kind: str) -> dict[str, Callable[[], Any]]:
    """Name → loader of everything that installed packages register under a group.

    An entry point names one object, or a catalogue: a table name → ``"module:attribute"`` whose own name is
    in capitals. Catalogues are imported, what they name is not.

    Args:
        group: for example ``"fedguard.detectors"``.
        kind: what its members are, for messages.

    Raises:
        RegistryError: a name is registered twice, or an entry point names something else.
    """
    sources: dict[str, Callable[[], Any]] = {}
    origin: dict[str, str] = {}
    for point in entry_points(group=group):
        for name, load in _names(point).items():
            if name in sources:
                raise RegistryError(
                    f"{kind} {name!r} is registered twice, by {origin[name]} and {_origin(point)}; "
                    "rename one of them"
                )
            sources[name], origin[name] = load, _origin(point)
    return sources


def _names(point: EntryPoint) -> dict[str, Callable[[], Any]]:
    load = functools.partial(_import, point.value, f"what {_origin(point)} registers,")
    if not point.attr.isupper():  # one object, registered under the entry point's own name
        return {point.name: load}
    catalogue = load()
    if inspect.isclass(catalogue):  # a class named by its initials, for example FLAME
        return {point.name: load}
    if not isinstance(catalogue, Mapping):
        raise RegistryError(f"{_origin(point)}: {point.value} is not a table name -> 'module:Class'")
    return {name: functools.partial(_import, target, "method") for name, target in catalogue.items()}


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name if point.dist else 'an unknown package'} ({point.value})"


def _import(target: str, kind: str) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a plug-in's module may raise anything
        raise RegistryError(f"cannot load {kind} {target!r}: {error}") from error
