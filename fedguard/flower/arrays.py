"""Flower's arrays as NumPy arrays, without a copy, from bytes that a stranger has sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from ..errors import ParameterError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class Malformed(Exception):  # noqa: N818 - what is wrong, to be caught and told
    """An array is not what it should be; says what is wrong."""


def read(array: Array) -> NDArray[Any]:
    """The numbers of an array, as a view of its bytes; nothing is allocated on the word of its header.

    Raises:
        Malformed: the bytes are no plain array of real numbers, or not the one that is announced.
    """
    if array.stype != "numpy.ndarray":
        raise Malformed(f"is serialised as {clean(array.stype)}, not as a NumPy array")
    file = BytesIO(array.data)
    try:
        shape, fortran, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    except Exception:  # the header is a literal that a stranger wrote: anything may happen
        raise Malformed("is no NumPy array") from None
    if dtype.kind not in "biuf":
        raise Malformed(f"has dtype {clean(dtype)}")
    if (tuple(array.shape), array.dtype) != (shape, str(dtype)):
        raise Malformed("is announced with another shape or dtype than it has")
    offset = file.tell()
    if min(shape, default=0) < 0 or len(array.data) - offset != math.prod(shape) * dtype.itemsize:
        raise Malformed("is cut short or too long")
    flat = np.frombuffer(array.data, dtype=dtype, offset=offset)
    return flat.reshape(shape, order="F" if fortran else "C")


def clean(text: object, length: int = 120) -> str:
    """A stranger's text fit for a log: one line of printable characters, not too long."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * length])
    line = " ".join(line.split())
    return line if len(line) <= length else line[: length - 1] + "…"


class Layout:
    """The arrays of the global model of one round, and where those that are scored lie in an update.

    Args:
        arrays: the global model.
        patterns: which arrays are scored, by name (``*`` and ``?`` as in file names; with a leading ``!``:
            not these); None for all that hold floating-point numbers.
        model: score the parameters of this model, in its order, because a method evaluates or trains it.
        first: the layout of a round before: what was a counter then is not scored now, although averaging
            has made a floating-point number of it.

    Raises:
        ParameterError: nothing is left to score, the model does not fit, or the global model is not finite.
    """

    def __init__(
        self,
        arrays: ArrayRecord,
        patterns: Sequence[str] | None = None,
        model: nn.Module | None = None,
        first: Layout | None = None,
    ) -> None:
        try:
            self.arrays = {name: read(array) for name, array in arrays.items()}
        except Malformed as error:
            raise ParameterError(f"the global model cannot be guarded: an array of it {error}") from None
        floating = [name for name, array in self.arrays.items() if array.dtype.kind == "f"]
        broken = [name for name in floating if not np.isfinite(self.arrays[name]).all()]
        if broken:
            raise ParameterError(
                f"array {broken[0]!r} of the global model holds NaN or Inf, so no update can be judged; "
                "start from a finite model"
            )
        if first is not None and list(first.arrays) == list(self.arrays):
            floating = first.floating
        #: The arrays that held floating-point numbers at first.
        self.floating: list[str] = floating
        self.scored = floating
        if model is not None:
            if patterns is not None:
                raise ParameterError(
                    "parameters: a method of this guard needs the whole model; leave parameters out"
                )
            self.scored = _names_in(model, self.arrays)
        elif patterns is not None:
            self.scored = [name for name in floating if selected(name, patterns)]
        if not self.scored:
            raise ParameterError(
                f"no array is scored: parameters is {patterns}, the floating-point arrays are "
                f"{clean(', '.join(floating)) or 'none'}"
            )
        ends = np.cumsum([self.arrays[name].size for name in self.scored]).tolist()
        self.size: int = ends[-1]
        self.slots = {
            name: slice(start, end) for name, start, end in zip(self.scored, [0, *ends], ends, strict=False)
        }

    def flat(self) -> Tensor:
        """(d,) the scored part of the global model."""
        return torch.from_numpy(
            np.concatenate([self.arrays[name].ravel() for name in self.scored]).astype(np.float32)
        )

    def split(self, vector: Tensor) -> dict[str, NDArray[Any]]:
        """The scored arrays of the global model after an update of this vector, by name."""
        step = vector.numpy()
        return {
            name: (self.arrays[name] + step[slot].reshape(self.arrays[name].shape)).astype(
                self.arrays[name].dtype
            )
            for name, slot in self.slots.items()
        }

    def fill(self, row: NDArray[np.float32], record: ArrayRecord) -> None:
        """Write a client's update (its arrays minus the global ones) into a row of the update matrix.

        Raises:
            Malformed: an array is missing, one too many, of another shape, of a dtype that does not fit, or
                holds NaN or Inf.
        """
        _same_names(self.arrays, record)
        for name, old in self.arrays.items():
            new = self._checked(name, old, record[name])
            if name in self.slots:
                _subtract(new, old, row[self.slots[name]])
                new = row[self.slots[name]]
            if new.dtype.kind == "f" and not np.isfinite(new).all():
                raise Malformed(f"array {name!r} holds NaN or Inf")

    def _checked(self, name: str, old: NDArray[Any], array: Array) -> NDArray[Any]:
        try:
            new = read(array)
        except Malformed as error:
            raise Malformed(f"array {name!r} {error}") from None
        if new.shape != old.shape:
            raise Malformed(f"array {name!r} has shape {new.shape}, not {old.shape}")
        if not np.can_cast(new.dtype, old.dtype, "same_kind"):
            raise Malformed(f"array {name!r} has dtype {new.dtype}, not {old.dtype}")
        return new


def _subtract(new: NDArray[Any], old: NDArray[Any], out: NDArray[np.float32]) -> None:
    """out ← new − old, in float32, or in float64 where one of the two is."""
    dtype = np.float64 if 8 in (new.dtype.itemsize, old.dtype.itemsize) else np.float32
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows becomes Inf, and is found
        np.subtract(new.ravel(), old.ravel(), out=out, dtype=dtype, casting="same_kind")


def _same_names(arrays: dict[str, NDArray[Any]], record: ArrayRecord) -> None:
    missing = [name for name in arrays if name not in record]
    extra = [name for name in record if name not in arrays]
    if missing:
        raise Malformed(
            f"array {missing[0]!r} is missing" + (f" ({len(missing)} are)" if missing[1:] else "")
        )
    if extra:
        raise Malformed(f"array '{clean(extra[0])}' does not belong to the model")


def selected(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is chosen by one of the patterns and ruled out by none with a leading ``!``."""
    out = [p[1:] for p in patterns if p.startswith("!")]
    chosen = [p for p in patterns if not p.startswith("!")] or ["*"]
    return any(fnmatchcase(name, p) for p in chosen) and not any(fnmatchcase(name, p) for p in out)


def _names_in(model: nn.Module, arrays: dict[str, NDArray[Any]]) -> list[str]:
    """The arrays that hold the model's parameters, in its order: by name, or else by position."""
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    whole = {name: tuple(t.shape) for name, t in model.state_dict().items()}
    names = dict(zip(whole, arrays, strict=True)) if len(whole) == len(arrays) else {}
    if all(name in arrays for name in shapes):
        names = {name: name for name in shapes}
    for name, shape in shapes.items():
        if name not in names or arrays[names[name]].shape != shape:
            raise ParameterError(
                f"server: parameter {name!r} of the model has no array of shape {shape} in the global model; "
                "send model.state_dict(), and give the guard the same architecture"
            )
    return [names[name] for name in shapes]
