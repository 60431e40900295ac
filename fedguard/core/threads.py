"""Single-threaded units of work: float32 sums depend on the number of threads, but results must not."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Iterator

import torch
from threadpoolctl import ThreadpoolController, threadpool_limits

_limited = False  # whether this process is already single-threaded


@contextlib.contextmanager
def single_thread() -> Iterator[None]:
    """Run the block with one thread in torch and in every BLAS and OpenMP library; restore afterwards."""
    global _limited
    before = torch.get_num_threads()
    if _limited and before == 1:
        yield
        return
    try:
        with _libraries(len(sys.modules)).limit(limits=1):
            torch.set_num_threads(1)
            _limited = True
            yield
    finally:
        _limited = False
        torch.set_num_threads(before)


@functools.lru_cache(maxsize=1)
def _libraries(modules: int) -> ThreadpoolController:
    """The loaded libraries; looking for them takes 2 ms, so only when something was imported since."""
    return ThreadpoolController()


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Run the block with one thread in the BLAS that NumPy calls; torch's threads stay as they are."""
    if _limited:
        yield
        return
    with _blas().limit(limits=1):
        yield


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def stay_single_threaded() -> None:
    """As :func:`single_thread`, for the rest of the process and for libraries that are loaded later."""
    global _limited
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = "1"
    threadpool_limits(limits=1)
    torch.set_num_threads(1)
    _limited = True
