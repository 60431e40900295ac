"""Compiled sorting networks (extra ``fast``: llvmlite), ready when the work pays for them.

NumPy does the work until a kernel is there: one is compiled in the background once enough values of its shape
have been seen. Both give the same bits, so nobody can tell which one ran.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np

from .networks import WIDTH, module_of_means

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: The most rows of a network; above, NumPy's sort of a column is hardly slower and compiling takes seconds.
MOST_ROWS = 256
#: Values of one shape that NumPy sorts before its kernel is compiled, which takes about as long.
PAYS = 10_000_000
#: Kernels kept; the number of survivors, and with it the shape, may change from round to round.
KEPT = 64

Shape = tuple[int, int, int]


class Kernel:
    """Means of sorted positions low … high − 1 of every column of n float32 rows, as machine code.

    Args:
        n: the number of rows.
        low: the first position.
        high: the position after the last one.
    """

    def __init__(self, n: int, low: int, high: int) -> None:
        import llvmlite.binding as binding
        from llvmlite import ir

        with _COMPILING:  # LLVM's global state is not safe for threads
            binding.initialize_native_target()
            binding.initialize_native_asmprinter()
            parsed = binding.parse_assembly(module_of_means(ir, n, low, high))
            machine = binding.Target.from_default_triple().create_target_machine(
                cpu=binding.get_host_cpu_name(), features=binding.get_host_cpu_features().flatten(), opt=1
            )
            self._engine = binding.create_mcjit_compiler(parsed, machine)  # owns the code
            self._engine.finalize_object()
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p
        )
        self._call = kind(self._engine.get_function_address("means"))

    def __call__(self, rows: NDArray[np.uintp], start: int, stop: int) -> NDArray[np.float32] | None:
        """(stop − start,) the means; None if a value is NaN or Inf, or if the columns do not fill a vector.

        Args:
            rows: (n,) the addresses of the rows, whose numbers lie next to each other.
            start: the first column.
            stop: the column after the last one.
        """
        if stop - start < WIDTH:
            return None
        out = np.empty(stop - start, dtype=np.float32)
        whole = stop - (stop - start) % WIDTH
        spans = [(start, whole)] if whole == stop else [(start, whole), (stop - WIDTH, stop)]
        for first, last in spans:  # the last vector repeats columns, whose means are the same again
            place = out.ctypes.data + 4 * (first - start)
            if self._call(rows.ctypes.data, first, last, place):
                return None
        return out


_COMPILING = threading.Lock()
_LOCK = threading.Lock()
_READY: OrderedDict[Shape, Kernel | None] = OrderedDict()  # None: failed, or still being compiled
_SEEN: dict[Shape, int] = {}
_FORKED: list[bool] = []


def _after_fork() -> None:
    """In a forked process: a thread that held the lock is gone, and LLVM may be in the middle of its work."""
    global _LOCK
    _LOCK = threading.Lock()
    _FORKED.append(True)  # kernels that are ready stay; no more are compiled


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def available() -> bool:
    """Whether llvmlite is installed."""
    return importlib.util.find_spec("llvmlite") is not None


def kernel_for(n: int, low: int, high: int, columns: int) -> Kernel | None:
    """The kernel of a shape, if it is there; else it is compiled in the background once that pays.

    Args:
        n: the number of rows.
        low: the first position.
        high: the position after the last one.
        columns: how many the caller is about to sort.
    """
    if not 3 <= n <= MOST_ROWS or not available():
        return None
    shape = (n, low, high)
    with _LOCK:
        if shape in _READY or _FORKED:
            if shape in _READY:
                _READY.move_to_end(shape)
            return _READY.get(shape)
        _SEEN[shape] = _SEEN.get(shape, 0) + n * columns
        if _SEEN[shape] < PAYS:
            return None
        _READY[shape] = None
        while len(_READY) > KEPT:
            _READY.popitem(last=False)
        del _SEEN[shape]
    threading.Thread(target=_compile, args=(shape,), daemon=True).start()
    return None


def _compile(shape: Shape) -> None:
    try:
        made: Any = Kernel(*shape)
    except Exception:  # a processor or version that llvmlite cannot serve: NumPy goes on
        return
    with _LOCK:
        if shape in _READY:
            _READY[shape] = made
