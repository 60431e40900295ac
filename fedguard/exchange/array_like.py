"""Read arrays from NumPy arrays, PyTorch tensors and nested lists, of any precision.

:func:`taken` reads the server's arrays, which are returned in the same form. :func:`numbers` reads untrusted
arrays from clients: it compares shapes before it builds anything, and accepts only plain classes, since a
subclass could contain arbitrary code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.errors import RoundError

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Floating-point types that NumPy lacks are converted to float32, which represents all their values.
_WIDE = torch.float32
_NATIVE = (torch.float16, torch.float32, torch.float64)


class Misfit(Exception):  # noqa: N818 - internal; always caught and stored as a fault
    """A reply does not fit the model.

    Attributes:
        kind: the kind of fault, one word. If *all* replies have the same kind, no client is to blame.
    """

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Form:
    """The type, dtype and device of an array, for returning its successor in the same form."""

    kind: str  # "array", "tensor" or "list"
    dtype: Any = None
    device: Any = None

    def given(self, array: NDArray[Any]) -> Any:
        """An array in this form."""
        if self.kind == "list":
            return array.tolist()
        if self.kind == "tensor":
            return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape)).to(
                self.device, self.dtype
            )
        return array


def taken(value: Any, what: str) -> tuple[NDArray[Any], Form]:
    """One of the server's arrays as a NumPy array, and its form.

    Raises:
        RoundError: it does not hold real numbers.
    """
    if isinstance(value, Tensor):
        if value.layout is not torch.strided or value.is_meta or value.is_complex() or value.is_quantized:
            raise RoundError(f"{what} is a tensor of {value.dtype} without plain real numbers; send it dense")
        plain = value.detach().cpu()
        narrow = plain.is_floating_point() and plain.dtype not in _NATIVE
        array = (plain.to(_WIDE) if narrow else plain).numpy()
        return array, Form("tensor", value.dtype, value.device)
    if isinstance(value, str | bytes) or value is None:
        raise RoundError(f"{what} is a {type(value).__name__}, not an array")
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise RoundError(f"{what} is not an array: {error}") from None
    if array.dtype.kind not in "fiub":
        raise RoundError(f"{what} has dtype {array.dtype}; models are made of real numbers")
    return array, Form("array" if isinstance(value, np.ndarray | np.generic) else "list")


def numbers(value: Any, own: NDArray[Any], what: str) -> NDArray[Any]:
    """A client's array as a NumPy array of the model's shape and kind.

    For a floating-point array, any floating-point precision is accepted; for integers and booleans, any
    compatible integer type. Nested lists of numbers are accepted for both.

    Raises:
        Misfit: it has another type, dtype or shape.
    """
    try:
        if type(value) in (Tensor, nn.Parameter):
            array = _from_tensor(value, own, what)
        elif isinstance(value, np.ndarray | np.generic):
            array = np.asarray(value)
        elif type(value) in (list, tuple, float, int):
            array = _from_list(value, own, what)
        else:
            raise Misfit("form", f"{what} is a {type(value).__name__}, not an array, a tensor or a list")
    except Misfit:
        raise
    except Exception as error:  # an unknown object may raise anything
        raise Misfit("form", f"{what} cannot be read ({type(error).__name__})") from None
    if not fits(array.dtype, own.dtype):
        raise Misfit("dtype", f"{what} has dtype {array.dtype}, the model's has {own.dtype}")
    if array.shape != own.shape:
        raise Misfit("shape", f"{what} has shape {array.shape}, the model's has {own.shape}")
    return array


def fits(sent: np.dtype[Any], own: np.dtype[Any]) -> bool:
    """Whether a client may send one dtype for another: floats of any precision, or compatible integers."""
    if own.kind == "f" or sent.kind == "f":
        return sent.kind == own.kind
    return sent.kind in "iub" and np.can_cast(sent, own, "same_kind")


def beyond(array: NDArray[Any], own: np.dtype[Any]) -> bool:
    """Whether finite numbers of a wider dtype become Inf in the model's."""
    if array.dtype.kind != "f" or array.dtype.itemsize <= own.itemsize or array.size == 0:
        return False
    most = np.finfo(own).max
    with np.errstate(invalid="ignore"):
        return bool((np.isfinite(array) & (np.abs(array) > most)).any())


def _from_tensor(value: Tensor, own: NDArray[Any], what: str) -> NDArray[Any]:
    if value.layout is not torch.strided or value.is_meta:
        raise Misfit("form", f"{what} is a tensor that is not dense")
    if tuple(value.shape) != own.shape:  # before any copy: an expanded view of one number may be huge
        raise Misfit("shape", f"{what} has shape {tuple(value.shape)}, the model's has {own.shape}")
    if value.is_complex() or value.is_quantized or value.is_floating_point() != (own.dtype.kind == "f"):
        raise Misfit("dtype", f"{what} has dtype {value.dtype}, the model's has {own.dtype}")
    plain = value.detach().cpu()
    if plain.is_floating_point() and plain.dtype not in _NATIVE:
        plain = plain.to(_WIDE)
    return plain.numpy()


def _from_list(value: Any, own: NDArray[Any], what: str) -> NDArray[Any]:
    """Nested lists, checked against the shape level by level before an array is built."""
    level = [value]
    for length in own.shape:
        if not all(type(part) in (list, tuple) and len(part) == length for part in level):
            raise Misfit("shape", f"{what} is a list of another shape, the model's has {own.shape}")
        level = [item for part in level for item in part]
    plain = {"f": (float, int), "b": (bool,)}.get(own.dtype.kind, (int,))
    odd = next((item for item in level if type(item) not in plain), None)
    if odd is not None:
        raise Misfit("dtype", f"{what} holds a {type(odd).__name__}, the model's has {own.dtype}")
    dtype = np.float64 if own.dtype.kind == "f" else own.dtype
    return np.array(level, dtype=dtype).reshape(own.shape)


def listed(reply: Any, count: int) -> list[Any]:
    """A reply as a list of ``count`` arrays.

    Raises:
        Misfit: the reply is something else.
    """
    if reply is None:
        raise Misfit("nothing", "it sent nothing")
    if isinstance(reply, Iterator):  # model.parameters(), say
        reply = list(islice(reply, count + 1))
    if not isinstance(reply, list | tuple):
        raise Misfit("form", f"it sent a {type(reply).__name__}, not a list of arrays")
    if len(reply) != count:
        raise Misfit("length", f"it sent {len(reply)} arrays, the model has {count}")
    return list(reply)


def by_key(reply: Any, names: Sequence[str]) -> list[Any]:
    """The arrays of a ``state_dict()`` in the order of ``names``.

    Raises:
        Misfit: the reply is not a ``state_dict()`` with exactly these keys.
    """
    if reply is None:
        raise Misfit("nothing", "it sent nothing")
    if not isinstance(reply, dict):
        raise Misfit("form", f"it sent a {type(reply).__name__}, not a state_dict")
    missing = [name for name in names if name not in reply]
    if missing:
        more = f" ({len(missing)} are)" if missing[1:] else ""
        raise Misfit("names", f"its {missing[0]!r} is missing{more}")
    if len(reply) > len(names):
        extra = next(key for key in reply if key not in set(names))
        raise Misfit("names", f"its {str(extra)[:60]!r} does not belong to the model")
    return [reply[name] for name in names]


def tied(given: Sequence[Any]) -> dict[int, int]:
    """Tied weights: position of a tensor → position of an earlier one with the same memory."""
    first: dict[Any, int] = {}
    twins = {}
    for k, value in enumerate(given):
        if isinstance(value, Tensor) and value.numel():
            place = (value.data_ptr(), tuple(value.shape), value.stride(), value.dtype, value.device)
            if place in first:
                twins[k] = first[place]
            else:
                first[place] = k
    return twins


def check_count(examples: Any, counted: float, most: float) -> None:
    """Raise Misfit if a sample count is missing, not a number, not positive, or above ``most``."""
    if math.isnan(counted):
        raise Misfit("count", f"its example count is {_short(examples)}")
    if counted > most:
        raise Misfit("count", f"it claims {counted:g} examples, more than {most:g}")
    if counted <= 0:
        raise Misfit("count", f"sample count {counted:g} is not a positive finite number")


def number(value: Any) -> float:
    """A claimed count as a float; NaN if it is not a number."""
    try:
        if isinstance(value, np.ndarray | Tensor) and value.shape == ():
            value = value.item()
        if isinstance(value, bool | np.bool_) or not isinstance(
            value, int | float | np.integer | np.floating
        ):
            return math.nan
        return float(value)
    except OverflowError:
        return math.inf
    except Exception:  # an unknown object may raise anything
        return math.nan


def _short(value: Any) -> str:
    text = f"{type(value).__name__} {str(value)[:20]!r}" if isinstance(value, str) else type(value).__name__
    return "missing" if value is None else f"not a number ({text})"
