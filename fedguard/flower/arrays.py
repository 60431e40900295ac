"""Flower's arrays as NumPy arrays, without a copy, from bytes that a stranger has sent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fnmatch import fnmatchcase
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from ..core.errors import ParameterError, RoundError
from ..exchange.array_like import Misfit, fits
from ..exchange.roles import by_model, by_name
from ..exchange.template import Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


#: Characters of an array's header: 64 dimensions, as many as NumPy has, need about 1,500.
MAX_HEADER = 4096


class Malformed(Misfit):
    """An array is not what it should be; says what is wrong."""

    def __init__(self, text: str, kind: str = "bytes") -> None:
        super().__init__(kind, text)


def read(array: Array, own: NDArray[Any] | None = None) -> NDArray[Any]:
    """The numbers of an array, as a view of its bytes; nothing is allocated on the word of its header.

    Args:
        array: what was sent.
        own: the array of the model that it stands for; its announced shape is compared before it is read.

    Raises:
        Malformed: the bytes are no plain array of real numbers, or not the one that is announced.
    """
    try:
        return _read(array, own)
    except Malformed:
        raise
    except Exception as error:  # a stranger wrote all of it: anything may happen
        raise Malformed(f"cannot be read ({type(error).__name__})") from None


def _read(array: Array, own: NDArray[Any] | None) -> NDArray[Any]:
    if array.stype != "numpy.ndarray":
        raise Malformed(f"is serialized as {clean(array.stype)}, not as a NumPy array")
    announced = tuple(array.shape)
    if own is not None and announced != own.shape:
        raise Malformed(f"has shape {clean(announced)}, not {own.shape}", "shape")
    file = BytesIO(array.data)
    try:
        header = _HEADERS[np.lib.format.read_magic(file)]
        shape, fortran, dtype = header(file, max_header_size=MAX_HEADER)
    except Exception:  # the header is a literal that a stranger wrote
        raise Malformed("is no NumPy array") from None
    if dtype.kind not in "biuf":
        raise Malformed(f"has dtype {clean(dtype)}", "dtype")
    if (announced, array.dtype) != (shape, str(dtype)):
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
    """The arrays of the global model of one round, and their :mod:`roles <fedguard.exchange.roles>`.

    Args:
        record: the global model.
        patterns: which arrays are learned, by name (``*`` and ``?`` as in file names; with a leading ``!``:
            not these); None for all that hold floating-point numbers and are no statistics.
        model: the server's model, whose parameters and buffers these are.
        whole: a method evaluates or trains that model, and so needs all of its parameters.

    Raises:
        ParameterError: nothing is learned, the model does not fit, or the global model is not finite.
    """

    def __init__(
        self,
        record: ArrayRecord,
        patterns: Sequence[str] | None = None,
        model: nn.Module | None = None,
        whole: bool = False,
    ) -> None:
        try:
            self.arrays = {name: read(array) for name, array in record.items()}
        except Malformed as error:
            raise ParameterError(f"the global model cannot be guarded: an array of it {error}") from None
        if whole and patterns is not None:
            raise ParameterError(
                "parameters: a method of this guard needs the whole model; leave parameters out"
            )
        self.record = record
        self.names = list(self.arrays)
        arrays = list(self.arrays.values())
        plan = by_name(self.names, arrays) if model is None else by_model(model, self.names, arrays, whole)
        candidates = [self.names[k] for k in plan.order]
        if patterns is not None:
            plan = plan.only(lambda k: selected(self.names[k], patterns))
        if not plan.order:
            raise ParameterError(
                f"no array is scored: parameters is {patterns}, the floating-point arrays are "
                f"{clean(', '.join(candidates)) or 'none'}"
            )
        try:
            self.template = Template(arrays, plan, [f"array {name!r}" for name in self.names])
        except RoundError as error:
            raise ParameterError(str(error)) from None
        self.roles = dict(zip(self.names, plan.roles, strict=True))
        self.twins = {self.names[k]: self.names[first] for k, first in plan.twins.items()}

    @property
    def size(self) -> int:
        """The length of an update vector."""
        return self.template.size

    def new(self, update: Tensor) -> dict[str, NDArray[Any]]:
        """The learned arrays of the global model after an update of this vector, by name."""
        statistics = [self.template.arrays[k] for k in self.template.statistics]
        moved = zip(self.names, self.template.moved(update, statistics), strict=True)
        return {name: array for name, array in moved if self.roles[name] == "learned"}

    def middle(self, statistics: NDArray[np.float64], weights: Sequence[float]) -> dict[str, NDArray[Any]]:
        """The statistics after a round in which clients have these weights, by name."""
        found = self.template.middle(statistics, np.asarray(weights, dtype=np.float64))
        return {self.names[k]: array for k, array in zip(self.template.statistics, found, strict=True)}

    def fill(self, row: NDArray[np.float32], statistics: NDArray[np.float64], record: ArrayRecord) -> None:
        """Write a client's update (its arrays minus the global ones) and its statistics into their rows.

        Raises:
            Misfit: an array is missing, one too many, of another shape, of a dtype that does not fit, or
                holds NaN or Inf where that counts.
        """
        _same_names(self.arrays, record)
        self.template.fill(row, statistics, [self.sent(name, record) for name in self.names])
        for k, slot in self.template.slots.items():
            if not np.isfinite(row[slot]).all():
                raise Malformed(f"array {self.names[k]!r} holds NaN or Inf", "nan")

    def sent(self, name: str, record: ArrayRecord) -> NDArray[Any]:
        """A client's array in the model's dtype; what the dtype does not hold becomes Inf.

        Raises:
            Malformed: it cannot be read, or has another shape, or a dtype that does not fit.
        """
        own = self.arrays[name]
        try:
            new = read(record[name], own)
            if not fits(new.dtype, own.dtype):
                raise Malformed(f"has dtype {new.dtype}, not {own.dtype}", "dtype")
        except Malformed as error:
            raise Malformed(f"array {name!r} {error}", error.kind) from None
        with np.errstate(over="ignore", invalid="ignore"):
            return new.astype(own.dtype, copy=False)


def _same_names(arrays: dict[str, NDArray[Any]], record: ArrayRecord) -> None:
    missing = [name for name in arrays if name not in record]
    extra = [name for name in record if name not in arrays]
    if missing:
        more = f" ({len(missing)} are)" if missing[1:] else ""
        raise Malformed(f"array {missing[0]!r} is missing{more}", "names")
    if extra:
        raise Malformed(f"array '{clean(extra[0])}' does not belong to the model", "names")


def selected(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name is chosen by one of the patterns and ruled out by none with a leading ``!``."""
    out = [p[1:] for p in patterns if p.startswith("!")]
    chosen = [p for p in patterns if not p.startswith("!")] or ["*"]
    return any(fnmatchcase(name, p) for p in chosen) and not any(fnmatchcase(name, p) for p in out)
