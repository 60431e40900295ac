"""Loading parameters into a model that may hold them already, as where clients start from one model."""

from __future__ import annotations

import weakref
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .dense import hooked
from .parameters import fitting, parts_of


class _Held(NamedTuple):
    """What was loaded last, and how often each parameter had been written to then, and its memory.

    The memory is kept, so that no other gets its address.
    """

    vector: weakref.ref[Tensor]
    version: int
    seen: dict[str, tuple[int, torch.UntypedStorage]]


_HELD: weakref.WeakKeyDictionary[nn.Module, _Held] = weakref.WeakKeyDictionary()


def hold(model: nn.Module, vector: Tensor) -> dict[str, nn.Parameter]:
    """Copy a (d,) vector into the model's parameters, except into those that hold their part already.

    Returns the parameters that it holds, by name: :func:`~.parameters.fitting`.

    Those are the parameters that nothing has written to since the same vector was loaded. PyTorch counts what
    is written, but not what goes through ``.data``, as a module of one's own may; models with such modules
    are loaded as a whole.
    """
    named, held = fitting(model, len(vector)), _HELD.get(model)
    same = held is not None and held.vector() is vector and held.version == vector._version
    known = held.seen if held is not None and same else {}
    with torch.no_grad():
        for name, part in parts_of(vector, named).items():
            if name not in known or not _unchanged(named[name], *known[name]):
                named[name].copy_(part)
    if all(type(part).__module__.startswith("torch.nn.") and not hooked(part) for part in model.modules()):
        seen = {name: (p._version, p.untyped_storage()) for name, p in named.items()}
        _HELD[model] = _Held(weakref.ref(vector), vector._version, seen)
    return named


def _unchanged(parameter: Tensor, version: int, memory: torch.UntypedStorage) -> bool:
    return parameter._version == version and parameter.untyped_storage()._cdata == memory._cdata
