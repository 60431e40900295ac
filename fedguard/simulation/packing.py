"""Python objects as bytes for worker processes; tensors are sent as plain arrays.

torch's own pickling moves every tensor through shared memory with its own file descriptor, which reaches
the limit of open files or fills a container's small ``/dev/shm``. It also sends a view's whole storage.
The bytes are pickles: use them only between FedGuard's own processes.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

#: The alignment of torch's allocator; at other addresses vector instructions may round differently.
ALIGNMENT = 64


def pack(value: Any, buffers: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Pickle a value; ``buffers``, if given, receives the memory of arrays and tensors."""
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers).dump(value)
    return stream.getvalue()


def unpack(data: bytes) -> Any:
    """The object that was given to :func:`pack`."""
    return pickle.loads(data)  # noqa: S301 - written by our own process


class Mapped(NamedTuple):
    """An object whose arrays' memory is in a file, which any number of processes can map.

    Attributes:
        data: the object without that memory.
        spans: start and length of every array in the file.
        path: the file.
    """

    data: bytes
    spans: tuple[tuple[int, int], ...]
    path: Path

    @classmethod
    def write(cls, value: Any, path: Path) -> Mapped:
        """Write the memory of all arrays and tensors in ``value`` to ``path``."""
        buffers: list[pickle.PickleBuffer] = []
        data = pack(value, buffers.append)
        spans = []
        with path.open("wb") as file:
            file.write(bytes(1))  # an empty file cannot be mapped
            for buffer in buffers:
                file.write(bytes(-file.tell() % ALIGNMENT))
                spans.append((file.tell(), buffer.raw().nbytes))
                file.write(buffer.raw())
        return cls(data, tuple(spans), path)

    def read(self) -> Any:
        """The object; writes to its arrays stay in this process."""
        with self.path.open("rb") as file:
            memory = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
        parts = [memory[start : start + length] for start, length in self.spans]
        return pickle.loads(self.data, buffers=parts)  # noqa: S301 - our own


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if type(value) is Tensor and not value.requires_grad:
            with contextlib.suppress(TypeError, RuntimeError):  # a type or layout that NumPy does not support
                return _tensor, (value.numpy(),)
        return NotImplemented


def _tensor(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
