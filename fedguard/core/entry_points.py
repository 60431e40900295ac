"""What installed packages offer under a group of entry points."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, distributions, entry_points
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
    origin: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        for name, load in _names(point).items():
            if name in sources:
                raise RegistryError(
                    f"{kind} {name!r} is registered twice, by {_origin(origin[name])} and {_origin(point)}; "
                    "rename one of them"
                )
            sources[name], origin[name] = load, point
    return sources


def _names(point: EntryPoint) -> dict[str, Callable[[], Any]]:
    load = functools.partial(_import, point.value, point)
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


def plug_ins() -> bool:
    """Whether an installed package besides FedGuard offers something under one of its groups."""
    return any(
        point.group.startswith("fedguard.") and not point.value.startswith("fedguard.")
        for package in distributions()
        for point in package.entry_points
    )


def _import(target: str, kind: str | EntryPoint) -> Any:
    module, _, attribute = target.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a plug-in's module may raise anything
        # To ask an entry point for its package reads a file, so only now.
        what = kind if isinstance(kind, str) else f"what {_origin(kind)} registers,"
        raise RegistryError(f"cannot load {what} {target!r}: {error}") from error
