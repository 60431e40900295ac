"""A pretended accelerator: real numbers, tagged with another device, that refuse to mix with the CPU.

Machines without a GPU can check with it that code works on one. Tensors that are moved to the device keep
their numbers in memory, but operations with CPU tensors, ``numpy()`` and generators of the CPU raise, as they
do on a GPU. Reading values back (``item``, ``tolist``, ``cpu``) works.

    with pretended_device() as device:
        guard.process(Round(updates.to(device), ids))

torch counts devices at the first backward pass of a process: call :func:`registered_device` before that if
code under test computes gradients on the device.

What it cannot show: other bits, missing kernels, memory, speed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from ..core.errors import ParameterError

#: The name of the device.
NAME = "pretended"
_aten = torch.ops.aten
#: Operations whose indices may be on the CPU.
_INDEXED = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
}
#: Operations, besides elementwise ones, that take CPU scalars (0-dimensional tensors).
_SCALARS = {_aten.masked_fill, _aten.masked_fill_, _aten.where, _aten.fill_, _aten.fill}


def can_pretend() -> bool:
    """Whether this version of torch can register a device in Python."""
    from torch.utils import backend_registration

    return hasattr(backend_registration, "_setup_privateuseone_for_python_backend")


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """A block in which tensors can be moved to the returned device, and created there.

    Raises:
        ParameterError: this version of torch cannot register a device in Python.
    """
    device = registered_device()
    before = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(…, device=…) then moves within the block's reach
    try:
        with _Pretending():  # type: ignore[no-untyped-call]
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(before)


def registered_device() -> torch.device:
    """The device, known to torch for the rest of the process; for fake tensors, which need no block.

    Raises:
        ParameterError: as :func:`pretended_device`.
    """
    if not can_pretend():
        raise ParameterError(f"torch {torch.__version__} cannot register a device in Python; use a newer one")
    if torch._C._get_privateuse1_backend_name() != NAME:
        from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

        _setup_privateuseone_for_python_backend(NAME)
    return torch.device(NAME, 0)


class Pretended(Tensor):
    """A tensor on the pretended device; ``memory`` holds its numbers."""

    memory: Tensor

    @staticmethod
    def __new__(cls, memory: Tensor) -> Pretended:
        """Tag a CPU tensor."""
        tagged: Pretended = Tensor._make_wrapper_subclass(
            cls,
            memory.shape,
            strides=memory.stride(),
            storage_offset=memory.storage_offset(),
            dtype=memory.dtype,
            device=torch.device(NAME, 0),
        )
        tagged.memory = memory
        return tagged

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"{self.memory!r} on {self.device}"

    def tolist(self) -> Any:
        """The numbers, read back."""
        return self.memory.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class _Pretending(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation in memory, and tag its results as the device would have them."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    asked = kwargs.get("device")
    if asked is not None:
        kwargs = {**kwargs, "device": torch.device("cpu")}
        tagged = torch.device(asked).type == NAME
    else:
        tagged = bool(there)
    if tagged and isinstance(kwargs.get("generator"), torch.Generator):
        raise RuntimeError(f"{function}: expected a {NAME!r} generator, found one of the CPU")
    if there and function not in (_aten._to_copy.default, _aten.copy_.default):
        _refuse_a_mix(function, args, kwargs, tensors)
    owner = {id(tensor.memory): tensor for tensor in there}
    bare = tree_map(lambda leaf: leaf.memory if isinstance(leaf, Pretended) else leaf, (args, kwargs))
    result = function(*bare[0], **bare[1])

    def tag(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor) or (not tagged and id(leaf) not in owner):
            return leaf
        known = owner.get(id(leaf))
        if known is None:
            return Pretended(leaf)
        return known

    if there and torch.Tag.inplace_view in function.tags:  # the tag's own shape changes too
        with no_dispatch():
            function(*args, **kwargs)
    if function is _aten.copy_.default:  # into the CPU, from the device
        return args[0]
    return tree_map(tag, result)


def _refuse_a_mix(
    function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], tensors: Sequence[Tensor]
) -> None:
    if function in _INDEXED and isinstance(args[0], Pretended):
        tensors = [leaf for leaf in (args[0], *args[2:3]) if isinstance(leaf, Tensor)]
    elementwise = torch.Tag.pointwise in function.tags or function.overloadpacket in _SCALARS
    strangers = [
        tensor
        for tensor in tensors
        if not isinstance(tensor, Pretended)
        and not (tensor.ndim == 0 and (elementwise or function in _INDEXED))
    ]
    if strangers:
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in strangers)
        raise RuntimeError(
            f"{function}: expected all tensors on {NAME}:0, but found CPU tensors of shape {shapes}"
        )
