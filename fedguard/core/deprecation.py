"""Old names keep working for one version, with a DeprecationWarning that gives the new name.

The rule is in ``docs/deprecations.md``, the table of old names in ``fedguard/_deprecated.py``.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Warn that ``old`` is now ``new``. With ``stacklevel`` 3, the warning names the caller's caller."""
    warnings.warn(f"{old} is now {new}; the old name goes with FedGuard 0.2", DeprecationWarning, stacklevel)


def moved(package: str, name: str, home: str) -> Any:
    """``home.name``, with a warning about its old place ``package.name``; for a module's ``__getattr__``.

    Raises:
        AttributeError: ``home`` does not have it either.
    """
    if not name.startswith("__"):
        module = importlib.import_module(home)
        if hasattr(module, name):
            warn(f"{package}.{name}", f"{home}.{name}", 4)
            return getattr(module, name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def renamed_keywords(**names: str) -> Callable[[C], C]:
    """A class decorator: the constructor also accepts old keywords (old="new").

    Raises:
        TypeError: a call of the constructor gives both the old and the new keyword.
    """

    def decorate(cls: C) -> C:
        init = cls.__init__  # type: ignore[misc]

        @functools.wraps(init)
        def construct(self: Any, *args: Any, **kwargs: Any) -> None:
            init(self, *args, **current(cls, kwargs))

        construct.renamed_keywords = names  # type: ignore[attr-defined]
        cls.__init__ = construct  # type: ignore[misc]
        return cls

    return decorate


def current(function: Any, params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters under their current names; warns about every old one."""
    names: Mapping[str, str] = getattr(getattr(function, "__init__", None), "renamed_keywords", {})
    old = names.keys() & params.keys()
    if not old:
        return dict(params)
    label = getattr(function, "__name__", str(function))
    for name in sorted(old):
        if names[name] in params:
            raise TypeError(f"{label} got {names[name]!r} and its old name {name!r}; give only the first")
        warn(f"{label}({name}=…)", f"{label}({names[name]}=…)", 4)
    return {names.get(name, name): value for name, value in params.items()}


class Renamed:
    """A descriptor for an attribute's old name: warns and reads the new one."""

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        warn(f"{owner.__name__}.{self.old}", f"{owner.__name__}.{self.new}")
        return getattr(instance, self.new)
