"""Updates that are larger than memory: read from disk in column blocks."""

from __future__ import annotations

import bisect
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..core.errors import RoundError
from ..core.files import write_atomically
from .blocks import Block, in_order, ranges
from .blockwise import BlockwiseUpdates
from .matrix import Index, positions
from .updates import Updates

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Supported safetensors types → NumPy dtypes to read them; a bfloat16 is the upper half of a float32.
_TYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


#: The type of a tensor that no file holds: all its numbers are 0.
ZERO = "ZERO"


class Part(NamedTuple):
    """One tensor in a file.

    Attributes:
        shape: its shape.
        kind: its safetensors type, or :data:`ZERO`.
        offset: the position of its first byte in the file.
    """

    shape: tuple[int, ...]
    kind: str
    offset: int

    @property
    def size(self) -> int:
        """How many numbers it has."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class UpdateFile:
    """One client's update: the tensors of a safetensors file, flattened and concatenated.

    Attributes:
        path: the file.
        parts: its tensors, in the order of the columns.
        edges: the first column of each part, then d.
        origin: for each part, the numbers (size,) to subtract from it; without it, the file holds the update.
    """

    path: Path
    parts: tuple[Part, ...]
    edges: tuple[int, ...]
    origin: tuple[NDArray[Any], ...] | None = None

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """(stop − start,) float32: consecutive columns."""
        out = np.zeros(stop - start, dtype=np.float32)
        for k in range(bisect.bisect_right(self.edges, start) - 1, len(self.parts)):
            first, last = max(start, self.edges[k]), min(stop, self.edges[k + 1])
            if first >= last or self.parts[k].kind == ZERO:
                continue
            kind, offset = self.parts[k].kind, self.parts[k].offset
            here = offset + (first - self.edges[k]) * _TYPES[kind].itemsize
            found = np.fromfile(self.path, _TYPES[kind], last - first, offset=here)
            if len(found) < last - first:
                raise RoundError(f"{self.path} is shorter than its header says")
            self._write(
                out[first - start : last - start],
                found,
                k,
                slice(first - self.edges[k], last - self.edges[k]),
            )
        return out

    def _write(self, out: NDArray[np.float32], found: NDArray[Any], k: int, where: Any) -> None:
        """Write numbers of part ``k`` as a float32 update."""
        kind = self.parts[k].kind
        if self.origin is None:
            out[:] = _float32(found, kind)
        else:
            subtract(out, _float32(found, kind) if kind == "BF16" else found, self.origin[k][where])

    def pick(self, columns: NDArray[np.int64]) -> NDArray[np.float32]:
        """(k,) some columns, each with its own read: a memory map would load whole pages."""
        out = np.zeros(len(columns), dtype=np.float32)
        if all(part.kind == ZERO for part in self.parts):
            return out
        with self.path.open("rb", buffering=0) as file:
            for k, (first, last) in enumerate(pairwise(self.edges)):
                part, here = self.parts[k], (columns >= first) & (columns < last)
                if part.kind == ZERO or not here.any():
                    continue
                kind, raw = _TYPES[part.kind], bytearray()
                for place in part.offset + (columns[here] - first) * kind.itemsize:
                    file.seek(int(place))
                    raw += file.read(kind.itemsize)
                values = np.empty(int(here.sum()), dtype=np.float32)
                self._write(values, np.frombuffer(raw, kind), k, columns[here] - first)
                out[here] = values
        return out


def subtract(out: NDArray[np.float32], sent: NDArray[Any], own: NDArray[Any]) -> None:
    """Write sent − own into ``out``, in the wider of both dtypes; numbers beyond float32 become Inf.

    Where a narrower dtype has only rounded ``own``, the difference is 0: an idle client's update is zero.
    """
    wide: Any = np.promote_types(np.promote_types(own.dtype, sent.dtype), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        np.subtract(sent, own, out=out, dtype=wide, casting="same_kind")
        if sent.dtype.kind == "f" and sent.dtype.itemsize < own.dtype.itemsize:
            out[sent == own.astype(sent.dtype)] = 0


def _float32(values: NDArray[Any], kind: str) -> NDArray[np.float32]:
    if kind == "BF16":
        return (values.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore"):  # overflow gives Inf, which the guard treats as unusable
        return values.astype(np.float32, copy=False)


class StreamedUpdates(BlockwiseUpdates):
    """Updates in safetensors files, one per client; only column blocks are loaded into memory.

    Blocks, norms, Gram matrices, inner products, distances, cosines, single rows and selected columns are
    bitwise identical to those of :class:`fedguard.Updates`. Access to ``matrix`` raises StreamedError.
    Vectors of d numbers (a mean, an aggregate) are in memory; :meth:`write` computes one without that.

    A file holds one or more tensors (float32, float64, float16 or bfloat16). All files have the same names.
    The tensors are flattened and concatenated. The files must not change while the object is in use.

    Args:
        files: paths, one per client, in the order of the clients.
        names: the order of the tensors in a file, for example that of ``model.named_parameters()``; by
            default that of the first file's header.

    Raises:
        RoundError: a file is not a safetensors file, or its tensors differ from those of the first file.

    Example:
        >>> import tempfile, torch
        >>> from pathlib import Path
        >>> from safetensors.torch import save_file
        >>> from fedguard import Round, StreamedUpdates
        >>> folder = tempfile.TemporaryDirectory()
        >>> files = {name: Path(folder.name) / f"{name}.safetensors" for name in ("ann", "bob")}
        >>> for path in files.values():
        ...     save_file({"weight": torch.ones(2, 3)}, path)
        >>> Round(StreamedUpdates(files), client_ids=list(files))
        Round(index=0, n=2, d=6)
        >>> folder.cleanup()
    """

    where = "are streamed from disk"

    def __init__(
        self, files: Mapping[Any, str | Path] | Sequence[str | Path], names: Sequence[str] | None = None
    ) -> None:
        paths = [Path(p) for p in (files.values() if isinstance(files, Mapping) else files)]
        if not paths:
            raise RoundError("a round needs at least one file")
        headers = [_header(path) for path in paths]
        order = list(headers[0]) if names is None else list(names)
        self._lent = {}
        self._files = [_file(p, header, order) for p, header in zip(paths, headers, strict=True)]
        for file in self._files:
            if [part.shape for part in file.parts] != [part.shape for part in self._files[0].parts]:
                raise RoundError(f"{file.path} and {paths[0]} hold tensors of different shapes")

    @classmethod
    def of(cls, files: Sequence[UpdateFile]) -> StreamedUpdates:
        """The updates of files whose contents are known, one per client."""
        made = object.__new__(cls)
        made._lent = {}
        made._files = list(files)
        return made

    @property
    def n(self) -> int:
        """Number of clients."""
        return len(self._files)

    @property
    def d(self) -> int:
        """Number of parameters."""
        return self._files[0].edges[-1]

    def block(self, start: int, stop: int, rows: slice = slice(None)) -> Block:
        """(rows, stop − start) float32, read from the files."""
        return np.stack([file.read(start, stop) for file in self._files[rows]])

    def row(self, i: int) -> Tensor:
        """(d,) a copy of client i's update, in memory."""
        return torch.from_numpy(self._files[i].read(0, self.d))

    def columns(self, which: Tensor) -> Tensor:
        """(n, k) a copy of some columns."""
        index = which.numpy()
        return torch.from_numpy(np.stack([file.pick(index) for file in self._files]))

    def take(self, clients: Index) -> Updates:
        """The updates of some clients (ordered positions, or a mask); keeps geometry that is computed."""
        index = positions(clients)
        if len(index) == self.n and (index == np.arange(self.n)).all():
            return self
        part = StreamedUpdates.of([self._files[i] for i in index])
        self._hand_on(part, index)
        return part

    def write(self, path: str | Path, work: Callable[[Block], Block], name: str = "update") -> None:
        """Compute a (d,) vector block by block into a safetensors file, without holding it in memory.

        Args:
            path: the file to write; it is whole or absent.
            work: maps a float32 block (n, w) to (w,) numbers, for example ``lambda b: np.median(b, 0)``.
            name: the tensor's name in the file.

        Raises:
            OSError: it cannot be written, or ``path`` is a link.
        """
        header = {name: {"dtype": "F32", "shape": [self.d], "data_offsets": [0, 4 * self.d]}}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)

        def fill(fresh: Path) -> None:
            with fresh.open("wb") as file:
                file.write(struct.pack("<Q", len(text)) + text)
                spans = ranges(self.n, self.d)
                for values in in_order(lambda span: work(self.block(*span)), spans):
                    file.write(np.asarray(values, dtype="<f4").tobytes())

        write_atomically(Path(path), fill)


def _header(path: Path) -> dict[str, Part]:
    """The tensors in a safetensors file, in the order of its header."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > path.stat().st_size:
                raise ValueError("its header is longer than the file")
            header = json.loads(file.read(length))
        return {
            name: Part(tuple(entry["shape"]), entry["dtype"], 8 + length + entry["data_offsets"][0])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except OSError as error:
        raise RoundError(f"{path} cannot be read: {error.strerror}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RoundError(f"{path} is not a safetensors file: {error}") from None


def _file(path: Path, header: Mapping[str, Part], order: Sequence[str]) -> UpdateFile:
    if set(order) != set(header):
        odd = sorted(set(order) ^ set(header))
        raise RoundError(f"{path} does not hold the same tensors as the others: {', '.join(odd[:3])}")
    parts = tuple(header[name] for name in order if header[name].size)
    wrong = [part.kind for part in parts if part.kind not in _TYPES]
    if wrong:
        raise RoundError(f"{path} holds {wrong[0]}; updates are {', '.join(_TYPES)}")
    return UpdateFile(path, parts, (0, *accumulate(part.size for part in parts)))
