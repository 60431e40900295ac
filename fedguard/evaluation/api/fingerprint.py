"""Fingerprints of objects given from Python: equal only if the object would do the same again.

A run is resumed only with the objects that it was started with. A fingerprint covers the code of one's own
classes and functions (compiled, so that comments and line numbers do not count), the values of the globals
that they use, and the state of instances. What installed packages and FedGuard itself define counts by name.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import inspect
import secrets
import sys
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

#: Hexadecimal digits of a fingerprint.
LENGTH = 12
#: Attributes of classes that say nothing about what they do.
_IDLE = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__firstlineno__", "__static_attributes__"),
    *("_abc_impl", "__abstractmethods__", "__parameters__", "__orig_bases__"),
}
#: What is written in C has no code to read.
_IN_C = (
    *(types.BuiltinFunctionType, types.MethodDescriptorType, types.WrapperDescriptorType),
    *(types.MethodWrapperType, types.ClassMethodDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType),
)
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(Ellipsis), type(NotImplemented))


def fingerprint(value: Any) -> str:
    """A hash of an object's code and state; a random one if its state cannot be read.

    A random fingerprint never matches, so that such an object's runs are never resumed.
    """
    digest = _Digest()
    try:
        digest.add(value)
    except Exception:  # whatever a user's __reduce__ raises
        return secrets.token_hex(LENGTH // 2)
    return digest.hash.hexdigest()[:LENGTH]


class _Digest:
    """Feeds an object into a hash, part by part."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []  # alive, so that their ids stay theirs

    def add(self, value: Any) -> None:
        """Feed a value; the second time a mutable object is met, its number."""
        if isinstance(value, _PLAIN) and type(value) in _PLAIN:
            self._put(type(value).__name__, value if isinstance(value, bytes) else repr(value).encode())
        elif type(value) in (tuple, frozenset, types.CodeType):
            self._parts(value)
        elif id(value) in self._seen:
            self._put("again", str(self._seen[id(value)]).encode())
        else:
            self._seen[id(value)] = len(self._seen)
            self._kept.append(value)
            self._parts(value)

    def _put(self, kind: str, data: Any = b"") -> None:
        self.hash.update(f"{kind}:{len(data)}:".encode())
        self.hash.update(data)

    def _all(self, kind: str, *values: Any) -> None:
        self._put(f"{kind}/{len(values)}")
        for value in values:
            self.add(value)

    def _parts(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            dense = value.detach().cpu().contiguous().flatten()
            self._all("tensor", str(value.dtype), tuple(value.shape), value.requires_grad)
            self._put("data", dense.view(torch.uint8).numpy().data)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            self._all("array", value.dtype.str, value.shape)
            self._put("data", np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
        elif isinstance(value, torch.Generator):
            self._all("generator", value.get_state())
        elif type(value) in (list, tuple):
            self._all(type(value).__name__, *value)
        elif isinstance(value, set | frozenset):
            self._all("set", *sorted(fingerprint(item) for item in value))
        elif type(value) is dict or isinstance(value, types.MappingProxyType):
            self._all("dict", *(part for item in value.items() for part in item))
        else:
            self._code_or_state(value)

    def _code_or_state(self, value: Any) -> None:
        if isinstance(value, types.CodeType):
            consts = value.co_consts
            self._all("code", value.co_code, value.co_names, value.co_varnames, value.co_freevars, consts)
        elif isinstance(value, types.ModuleType):
            self._module(value)
        elif isinstance(value, types.FunctionType):
            self._function(value)
        elif isinstance(value, types.MethodType):
            self._all("method", value.__func__, value.__self__)
        elif isinstance(value, staticmethod | classmethod):
            self._all(type(value).__name__, value.__func__)
        elif isinstance(value, property):
            self._all("property", value.fget, value.fset, value.fdel)
        elif isinstance(value, functools.cached_property):
            self._all("cached", value.func)
        elif inspect.isclass(value):
            self._class(value)
        elif isinstance(value, _IN_C):
            self._put("builtin", f"{getattr(value, '__module__', '')}.{_name(value)}".encode())
            owner = getattr(value, "__self__", None)
            self.add(None if isinstance(owner, types.ModuleType) else owner)
        elif hasattr(value, "__wrapped__"):  # functools.cache
            self._all("wrapped", type(value), value.__wrapped__)
        else:
            self._instance(value)

    def _module(self, module: types.ModuleType) -> None:
        file = getattr(module, "__file__", None)
        own = file and not _installed(module.__name__) and Path(file).is_file()
        self._put(f"module {module.__name__}", Path(file).read_bytes() if file and own else b"")

    def _function(self, function: types.FunctionType) -> None:
        # A decorator of an installed package wraps our functions under our module's name.
        if _installed(function.__module__) and _installed(function.__globals__.get("__name__")):
            self._put("name", f"{function.__module__}.{_name(function)}".encode())
            closed = () if function.__closure__ is None else function.__closure__
            self._all("closure", *(_content(cell) for cell in closed))
            return
        closed = function.__closure__ or ()
        self._all("function", function.__code__, function.__defaults__, function.__kwdefaults__)
        self._all("closure", *(_content(cell) for cell in closed))
        self._all("attributes", vars(function))
        for name in sorted(set(_globals_of(function.__code__))):
            if name in function.__globals__:
                self._put("global", name.encode())
                self._global(function.__globals__[name])

    def _global(self, value: Any) -> None:
        """A global that code uses; of one whose state cannot be read, for example a lock, the type."""
        try:
            self.add(value)
        except Exception:  # whatever a user's __reduce__ raises
            self._put("type", f"{type(value).__module__}.{type(value).__qualname__}".encode())

    def _class(self, cls: type[Any]) -> None:
        if _installed(cls.__module__):
            self._put("name", f"{cls.__module__}.{_name(cls)}".encode())
            return
        self._all("class", cls.__name__, type(cls), *cls.__bases__)
        for name, value in sorted(vars(cls).items()):
            if name not in _IDLE:
                self._put("member", name.encode())
                self.add(value)

    def _instance(self, value: Any) -> None:
        reduced = value.__reduce_ex__(4)
        if isinstance(reduced, str):
            self._put("name", f"{type(value).__module__}.{reduced}".encode())
            return
        made, arguments, *rest = reduced
        parts = [list(part) if isinstance(part, Iterator) else part for part in rest]
        if parts and type(parts[0]) is dict:
            parts[0] = {name: part for name, part in parts[0].items() if not _is_cache(type(value), name)}
        self._all("instance", type(value), made, arguments, *parts)


def _is_cache(cls: type[Any], name: Any) -> bool:
    """Whether an attribute is computed from the others when it is asked for."""
    found = inspect.getattr_static(cls, name, None) if isinstance(name, str) else None
    return isinstance(found, functools.cached_property)


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is bound later
        return None


def _globals_of(code: types.CodeType) -> Iterator[str]:
    """The names of globals that a function's code, or that of functions in it, reads."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield str(instruction.argval)
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from _globals_of(const)


def _name(value: Any) -> str:
    return str(getattr(value, "__qualname__", getattr(value, "__name__", type(value).__qualname__)))


@functools.cache
def _installed(module: str | None) -> bool:
    """Whether a module is part of Python, of an installed package or of FedGuard, by its name."""
    top = (module or "").partition(".")[0]
    if top in ("__main__", "__mp_main__", ""):
        return False
    if top in sys.stdlib_module_names or top == "fedguard":
        return True
    found: Mapping[str, Any] = vars(sys.modules.get(top, types.ModuleType(top)))
    places = [str(found.get("__file__") or ""), *map(str, found.get("__path__") or ())]
    return any({"site-packages", "dist-packages"} & set(Path(place).parts) for place in places)
