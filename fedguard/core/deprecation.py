"""Old names keep working for one version, with a DeprecationWarning that says the new one.

The rule, and the table of old names: ``docs/deprecations.md`` and ``fedguard/_deprecated.py``.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

C = TypeVar("C", bound=type)


def warn(old: str, new: str, stacklevel: int = 3) -> None:
    """Say that ``old`` is now called ``new``; ``stacklevel`` 3 blames the caller of who calls this."""
    warnings.warn(f"{old} is now {new}; the old name goes with FedGuard 0.2", DeprecationWarning, stacklevel)


def moved(package: str, name: str, home: str) -> Any:
    """``package.name`` for a name that a module of the package has now; for ``__getattr__``.

    Raises:
        AttributeError: the module does not have it either.
    """
    if not name.startswith("__"):
        module = importlib.import_module(home)
        if hasattr(module, name):
            warn(f"{package}.{name}", f"{home}.{name}", 4)
            return getattr(module, name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


def renamed_keywords(**names: str) -> Callable[[C], C]:
    """A class decorator: the constructor takes old keywords, too (old="new").

    Raises:
        TypeError: at a call that gives the old keyword and the new one.
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
    """Parameters under their present names; a warning for every old one."""
    names: Mapping[str, str] = getattr(getattr(function, "__init__", None), "renamed_keywords", {})
    old = names.keys() & params.keys()
    if not old:
        return dict(params)
    label = getattr(function, "__name__", str(function))
    for name in sorted(old):
        if names[name] in params:
            raise TypeError(f"{label} got {names[name]!r} and its old name {name!r}; give the first alone")
        warn(f"{label}({name}=…)", f"{label}({names[name]}=…)", 4)
    return {names.get(name, name): value for name, value in params.items()}


class Renamed:
    """An attribute's old name: reads the new one."""

    def __init__(self, new: str) -> None:
        self.new = new

    def __set_name__(self, owner: type, name: str) -> None:
        self.old = name

    def __get__(self, instance: Any, owner: type) -> Any:
        if instance is None:
            return self
        warn(f"{owner.__name__}.{self.old}", f"{owner.__name__}.{self.new}")
        return getattr(instance, self.new)
