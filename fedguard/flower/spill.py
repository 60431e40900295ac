"""Keep replies on disk: each one becomes a safetensors file when it arrives, and is read block by block."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from torch import Tensor

from ..core.errors import ParameterError
from ..exchange.array_like import Misfit
from ..geometry.streamed import ZERO, Part, StreamedUpdates, UpdateFile, subtract
from .arrays import Layout, Malformed, recorded, same_names
from .replies import Reply, array_record

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KINDS = {"float16": "F16", "float32": "F32", "float64": "F64"}
#: How many numbers are checked and written at a time.
BLOCK = 2**20


class Spilled(Array):
    """An array that is read when it is used.

    Args:
        dtype: its dtype.
        shape: its shape.
        load: reads it.
    """

    def __init__(self, dtype: str, shape: tuple[int, ...], load: Callable[[], NDArray[Any]]) -> None:
        self.dtype, self.shape, self.stype = dtype, shape, "numpy.ndarray"
        self.__dict__["_load"] = load

    @property
    def data(self) -> bytes:  # type: ignore[override]  # an attribute of the class above
        """The bytes of a NumPy file, as Flower sends them."""
        found: bytes = Array(self.numpy()).data
        return found

    def numpy(self) -> NDArray[Any]:
        """The array."""
        found: NDArray[Any] = self.__dict__["_load"]()
        return found


@dataclass
class Kept:
    """What is left of a reply in memory.

    Attributes:
        row: its update, on disk.
        statistics: (s,) its BatchNorm statistics.
        fault: why its arrays do not fit the model.
        lost: why it could not be written; its sender is not to blame.
    """

    row: UpdateFile | None = None
    statistics: NDArray[np.float64] | None = None
    fault: Misfit | None = None
    lost: str = ""


class Spill:
    """The replies of one round, on disk. The learned arrays of a reply are one safetensors file.

    Args:
        folder: where to make a temporary folder for the round; created if absent.
        layout: the global model.

    Raises:
        ParameterError: the model has a dtype that safetensors lacks, or the folder cannot be made.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        template = layout.template
        own = [template.arrays[k] for k in template.slots]
        odd = [str(array.dtype) for array in own if str(array.dtype) not in _KINDS]
        if odd:
            raise ParameterError(f"spill: the model has arrays of {odd[0]}; use {', '.join(_KINDS)}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._home = tempfile.TemporaryDirectory(
                prefix="fedguard-", dir=folder, ignore_cleanup_errors=True
            )
        except OSError as error:
            raise ParameterError(f"spill: {folder} cannot be used: {error.strerror}") from None
        self.layout = layout
        self._origin = tuple(array.reshape(-1) for array in own)
        self._edges = (0, *accumulate(array.size for array in own))
        self._header, self._parts = self._plan()
        self._kept: dict[int, Kept] = {}
        #: The update of a reply that is not usable: zeros.
        self._nothing = UpdateFile(Path(), (Part((template.size,), ZERO, 0),), (0, template.size))

    def close(self) -> None:
        """Remove the files."""
        self._home.cleanup()

    def keep(self, message: Message) -> Kept:
        """Write a reply's arrays to disk, and replace them in the message; once only."""
        if id(message) in self._kept:
            return self._kept[id(message)]
        kept = self._kept[id(message)] = Kept()
        if message.has_error() or not message.has_content():
            return kept
        content = message.content
        path = Path(self._home.name) / f"{len(self._kept)}.safetensors"
        rest = {key: content[key] for key in content if key not in content.array_records}
        try:
            record = array_record(content)
            kept.statistics = self._written(path, record)
            kept.row = UpdateFile(path, self._parts, self._edges, self._origin)
            rest |= dict.fromkeys(content.array_records, recorded(self._lazy(path)))
        except Misfit as misfit:
            kept.fault = misfit
        except OSError as error:
            kept.lost = f"its reply cannot be kept in {self._home.name}: {error.strerror}"
        except Exception as error:  # untrusted record: anything may be raised
            kept.fault = Malformed(f"its arrays cannot be read ({type(error).__name__})")
        if kept.row is None:
            path.unlink(missing_ok=True)
        message.content = RecordDict(rest)
        return kept

    def put_aside(self, replies: Sequence[Reply]) -> None:
        """Put the replies aside that could not be written; nobody is blamed."""
        for reply in replies:
            if reply.fault is None and reply.message is not None and (kept := self.keep(reply.message)).lost:
                reply.fault, reply.aside = kept.lost, True

    def updates(self, replies: Sequence[Reply], statistics: NDArray[np.float64]) -> StreamedUpdates:
        """Return the updates; write statistics into their rows, record arrays that do not fit as faults."""
        rows = []
        for own, reply in zip(statistics, replies, strict=True):
            kept = Kept() if reply.fault is not None or reply.message is None else self.keep(reply.message)
            if kept.fault is not None:
                reply.blame(kept.fault.kind, str(kept.fault))
            if kept.statistics is not None:
                own[:] = kept.statistics
            rows.append(kept.row or self._nothing)
        return StreamedUpdates.of(rows)

    def params(self) -> Tensor:
        """(d,) float32: the global model, flattened and concatenated; a file mapped into memory."""
        path = Path(self._home.name) / "global"
        if not path.exists():
            with path.open("wb") as file, np.errstate(over="ignore"):
                for array in self._origin:
                    for start in range(0, len(array), BLOCK):
                        file.write(array[start : start + BLOCK].astype(np.float32).data)
        return torch.from_file(str(path), shared=False, size=self._edges[-1], dtype=torch.float32)

    def _learned(self) -> list[int]:
        """The positions of the arrays that are written."""
        template = self.layout.template
        return [k for k in template.slots if template.plan.roles[k] == "learned"]

    def _plan(self) -> tuple[bytes, tuple[Part, ...]]:
        """The header of every file, and where its arrays are; frozen ones are not in it."""
        arrays, entries, begins, end = self.layout.template.arrays, {}, {}, 0
        for k in self._learned():
            kind, begins[k], end = _KINDS[str(arrays[k].dtype)], end, end + arrays[k].nbytes
            span = [begins[k], end]
            entries[self.layout.names[k]] = {"dtype": kind, "shape": arrays[k].shape, "data_offsets": span}
        text = json.dumps(entries).encode()
        text += b" " * (-len(text) % 8)
        header = struct.pack("<Q", len(text)) + text
        parts = [
            Part((arrays[k].size,), _KINDS[str(arrays[k].dtype)], len(header) + begins[k])
            if k in begins
            else Part((arrays[k].size,), ZERO, 0)
            for k in self.layout.template.slots
        ]
        return header, tuple(parts)

    def _written(self, path: Path, record: ArrayRecord) -> NDArray[np.float64]:
        """Write a reply's learned arrays, one by one; return its statistics.

        Raises:
            Misfit: as :meth:`Layout.fill`.
            OSError: it cannot be written.
        """
        layout, template = self.layout, self.layout.template
        same_names(layout.arrays, record)
        for name in layout.names:
            layout.sent(name, record)  # has another shape or dtype, say
        statistics = np.zeros(template.width)
        template.note(statistics, {k: layout.sent(layout.names[k], record) for k in template.places})
        with path.open("wb") as file:
            file.write(self._header)
            for name in (layout.names[k] for k in self._learned()):
                _append(file, layout.sent(name, record), layout.arrays[name], name)
        return statistics

    def _lazy(self, path: Path) -> dict[str, Array]:
        """The arrays of a written reply; those that the server replaces anyway are its own."""
        layout, found = self.layout, dict(self.layout.record)
        offsets = {k: part.offset for k, part in zip(layout.template.slots, self._parts, strict=True)}
        for k in self._learned():
            own = layout.template.arrays[k]
            found[layout.names[k]] = Spilled(str(own.dtype), own.shape, _reader(path, offsets[k], own))
        return found


def _append(file: BinaryIO, sent: NDArray[Any], own: NDArray[Any], name: str) -> None:
    """Write an array in blocks; raise Malformed if the difference from the model's is not finite."""
    flat, before = sent.reshape(-1), own.reshape(-1)
    out = np.empty(min(BLOCK, flat.size), dtype=np.float32)
    for start in range(0, flat.size, BLOCK):
        part = np.ascontiguousarray(flat[start : start + BLOCK])
        subtract(out[: len(part)], part, before[start : start + BLOCK])
        if not np.isfinite(out[: len(part)]).all():
            raise Malformed(f"array {name!r} holds NaN or Inf", "nan")
        file.write(part.data)


def _reader(path: Path, offset: int, own: NDArray[Any]) -> Callable[[], NDArray[Any]]:
    dtype, shape, size = own.dtype, own.shape, own.size
    return lambda: np.fromfile(path, dtype, size, offset=offset).reshape(shape)
