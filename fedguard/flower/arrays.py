"""Read Flower's arrays as NumPy arrays, without a copy, from untrusted bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from flwr.app import Array, ArrayRecord
from torch import Tensor, nn

from ..core.errors import ParameterError, RoundError
from ..exchange.adapters import ADAPTERS, adapter_names
from ..exchange.array_like import Misfit, fits
from ..exchange.roles import by_model, by_name
from ..exchange.template import Template

if TYPE_CHECKING:
    from numpy.typing import NDArray

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


#: Longest accepted array header, in characters. 64 dimensions, NumPy's maximum, need about 1,500.
MAX_HEADER = 4096


class Malformed(Misfit):
    """An array cannot be read or does not match the model; the message says why."""

    def __init__(self, text: str, kind: str = "bytes") -> None:
        super().__init__(kind, text)


def read(array: Array, own: NDArray[Any] | None = None) -> NDArray[Any]:
    """Return an array's numbers as a view of its bytes. Allocates nothing, whatever the header claims.

    Args:
        array: the received array.
        own: the model's array of the same name; its shape is compared with the announced one before reading.

    Raises:
        Malformed: the bytes are not a plain array of real numbers, or not the announced shape or dtype.
    """
    try:
        return _read(array, own)
    except Malformed:
        raise
    except Exception as error:  # the bytes are untrusted: anything may be raised
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
    except Exception:  # the header is an untrusted literal
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


def recorded(arrays: Mapping[str, Array]) -> ArrayRecord:
    """Return a record of these very arrays; the constructor would copy them, and read those on disk."""
    record = ArrayRecord()
    for name, array in arrays.items():
        record[name] = array
    return record


def clean(text: object, length: int = 120) -> str:
    """Make untrusted text safe to log: one line of printable characters, at most ``length`` long."""
    line = "".join(c if c.isprintable() else " " for c in str(text)[: 4 * length])
    line = " ".join(line.split())
    return line if len(line) <= length else line[: length - 1] + "…"


class Layout:
    """The arrays of the global model of one round, and their :mod:`roles <fedguard.exchange.roles>`.

    Args:
        record: the global model.
        patterns: names of the learned arrays, with ``*`` and ``?`` as in file names; a leading ``!``
            excludes, and "adapters" stands for LoRA adapters and the new head. None takes all
            floating-point arrays that are not statistics.
        model: the server's model; the arrays are its parameters and buffers.
        whole: whether a method evaluates or trains that model and so needs all of its parameters.

    Raises:
        ParameterError: no array is learned, the model does not fit, or the global model is not finite.
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
        self.record = record
        self.names = list(self.arrays)
        arrays = list(self.arrays.values())
        plan = by_name(self.names, arrays) if model is None else by_model(model, self.names, arrays, whole)
        candidates = [self.names[k] for k in plan.order]
        if patterns is not None:
            chosen = selected(self.names, patterns)
            if whole and any(
                plan.roles[k] == "learned" and n not in chosen for k, n in enumerate(self.names)
            ):
                raise ParameterError(
                    "parameters: a method of this guard needs the whole model; leave parameters out"
                )
            plan = plan.only(lambda k: self.names[k] in chosen)
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
        """Return the global model's learned arrays after adding this update vector, by name."""
        statistics = [self.template.arrays[k] for k in self.template.statistics]
        moved = zip(self.names, self.template.moved(update, statistics), strict=True)
        return {name: array for name, array in moved if self.roles[name] == "learned"}

    def middle(self, statistics: NDArray[np.float64], weights: Sequence[float]) -> dict[str, NDArray[Any]]:
        """Return the statistics, by name, after a round with these client weights."""
        found = self.template.middle(statistics, np.asarray(weights, dtype=np.float64))
        return {self.names[k]: array for k, array in zip(self.template.statistics, found, strict=True)}

    def fill(self, row: NDArray[np.float32], statistics: NDArray[np.float64], record: ArrayRecord) -> None:
        """Write a client's update (its arrays minus the global ones) and its statistics into their rows.

        Raises:
            Misfit: an array is missing or unknown, has another shape or an incompatible dtype, or holds NaN
                or Inf where the array is scored.
        """
        same_names(self.arrays, record)
        self.template.fill(row, statistics, [self.sent(name, record) for name in self.names])
        for k, slot in self.template.slots.items():
            if not np.isfinite(row[slot]).all():
                raise Malformed(f"array {self.names[k]!r} holds NaN or Inf", "nan")

    def sent(self, name: str, record: ArrayRecord) -> NDArray[Any]:
        """Return a client's array in the model's dtype; values out of its range become Inf.

        Raises:
            Malformed: it cannot be read, or has another shape or an incompatible dtype.
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


def same_names(arrays: dict[str, NDArray[Any]], record: ArrayRecord) -> None:
    """Raise Malformed if a client's arrays have other names than the model's."""
    missing = [name for name in arrays if name not in record]
    extra = [name for name in record if name not in arrays]
    if missing:
        more = f" ({len(missing)} are)" if missing[1:] else ""
        raise Malformed(f"array {missing[0]!r} is missing{more}", "names")
    if extra:
        raise Malformed(f"array '{clean(extra[0])}' does not belong to the model", "names")


def selected(names: Sequence[str], patterns: Sequence[str]) -> set[str]:
    """The names that some pattern matches and no pattern with a leading ``!`` excludes.

    The pattern "adapters" stands for :func:`~fedguard.exchange.adapters.adapter_names`.

    Raises:
        ParameterError: a pattern is "adapters", and there is no adapter.
    """
    adapters = set(adapter_names(names))
    if not adapters and ADAPTERS in [p.removeprefix("!") for p in patterns]:
        raise ParameterError(
            "parameters is 'adapters', but no array of the global model is named like a LoRA adapter; "
            f"its arrays are {clean(', '.join(names))}; send peft.get_peft_model_state_dict(model)"
        )

    def matches(name: str, pattern: str) -> bool:
        return name in adapters if pattern == ADAPTERS else fnmatchcase(name, pattern)

    out = [p[1:] for p in patterns if p.startswith("!")]
    chosen = [p for p in patterns if not p.startswith("!")] or ["*"]
    return {
        name
        for name in names
        if any(matches(name, p) for p in chosen) and not any(matches(name, p) for p in out)
    }
