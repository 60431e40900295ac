"""Instances of methods that were given from Python, as classes whose instances are fresh copies."""

from __future__ import annotations

import copy
import functools
from typing import Any


def template(instance: Any) -> type[Any]:
    """A class without parameters; each of its "instances" is a deep copy of the given one.

    The given instance is never used itself, so that every federation starts from its state as given.
    """
    return _template(_Same(instance))


class _Same:
    """Hashes and compares by identity; keeps the object alive, so that its id stays its own."""

    def __init__(self, instance: Any) -> None:
        self.instance = instance

    def __hash__(self) -> int:
        return id(self.instance)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.instance is self.instance


@functools.lru_cache(maxsize=64)
def _template(same: _Same) -> type[Any]:
    def new(cls: type[Any]) -> Any:
        return copy.deepcopy(same.instance)

    def init(self: Any) -> None:
        """Never called: ``new`` returns no instance of the template."""

    kind: Any = type(same.instance)
    body = {"__new__": new, "__init__": init, "__doc__": kind.__doc__, "__module__": kind.__module__}
    made: type[Any] = type(kind)(kind.__name__, (kind,), body)
    return made
