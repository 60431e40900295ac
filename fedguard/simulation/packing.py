"""Python objects as bytes for worker processes; tensors are sent as plain arrays.

torch's own pickling moves every tensor through shared memory with its own file descriptor, which reaches
the limit of open files or fills a container's small ``/dev/shm``. It also sends a view's whole storage.
The bytes are pickles: use them only between FedGuard's own processes. Classes and functions travel by name,
except while objects are given from Python (``GIVEN``): then those that another process cannot import, for
example of a notebook, travel by value (cloudpickle).
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import mmap
import pickle
import sys
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.errors import ParameterError
from ..core.named_code import GIVEN

#: The alignment of torch's allocator; at other addresses vector instructions may round differently.
ALIGNMENT = 64


def pack(value: Any, buffers: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    """Pickle a value; ``buffers``, if given, receives the memory of arrays and tensors."""
    stream = io.BytesIO()
    pickler = _by_value() if GIVEN else _Pickler
    pickler(stream, protocol=5, buffer_callback=buffers).dump(value)
    return stream.getvalue()


def unpack(data: bytes) -> Any:
    """The object that was given to :func:`pack`."""
    return pickle.loads(data)  # noqa: S301 - written by our own process


def pack_given(leave_out: Collection[str] = ()) -> bytes:
    """The objects that were given from Python, for another process; nothing if there are none.

    Args:
        leave_out: names of objects that the other process gets otherwise.

    Raises:
        ParameterError: an object cannot be sent.
    """
    table = {name: value for name, value in GIVEN.items() if name not in leave_out}
    for name, value in table.items():
        try:
            pack(value)
        except Exception as error:  # whatever a user's object raises
            raise ParameterError(
                f"{name.partition('@')[0]} cannot be sent to worker processes ({error}); use workers=1, or "
                "leave out of it what cannot be copied"
            ) from error
    return pack(table) if table else b""


def receive_given(table: bytes) -> None:
    """Take what :func:`pack_given` made, for the rest of this process."""
    if table:
        GIVEN.update(unpack(table))


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


def _reduced(value: Any) -> Any:
    if type(value) is Tensor and not value.requires_grad:
        with contextlib.suppress(TypeError, RuntimeError):  # a type or layout that NumPy does not support
            return _tensor, (value.numpy(),)
    return NotImplemented


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        return _reduced(value)


@functools.cache
def _by_value() -> type[pickle.Pickler]:
    import cloudpickle

    class ByValue(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, value: Any) -> Any:
            found = _reduced(value)
            return super().reducer_override(value) if found is NotImplemented else found

    return ByValue


@contextlib.contextmanager
def by_value() -> Iterator[None]:
    """Within the block, modules of given objects that no other process can import travel by value, too."""
    import cloudpickle

    known = cloudpickle.list_registry_pickle_by_value()
    found = [sys.modules[name] for name in _modules() - known if not _importable(name.partition(".")[0])]
    for module in found:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in found:
            cloudpickle.unregister_pickle_by_value(module)


def _modules() -> set[str]:
    """The modules of the classes and functions that were given, and of the classes of given instances."""
    owners: list[Any] = []
    for value in GIVEN.values():
        owners += [value] if inspect.isroutine(value) else inspect.getmro(_class_of(value))
    names = {str(getattr(owner, "__module__", None)) for owner in owners}
    return {name for name in names if name in sys.modules and name != "__main__"}


def _class_of(value: Any) -> type[Any]:
    return value if inspect.isclass(value) else type(value)


def _importable(package: str) -> bool:
    """Whether a fresh process would find a package."""
    finders = [finder for finder in sys.meta_path if hasattr(finder, "find_spec")]
    return any(finder.find_spec(package, None) is not None for finder in finders)


def _tensor(array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(array)
    return tensor.clone() if tensor.data_ptr() % ALIGNMENT else tensor
