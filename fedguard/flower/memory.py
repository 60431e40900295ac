"""A server of large models stays small: garbage is collected early, and freed memory is returned."""

from __future__ import annotations

import ctypes
import functools
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def early_collection() -> Iterator[None]:
    """Collect reference cycles soon after they are left.

    Flower's HTTP responses are such cycles, each with a piece of a model. By default Python finds them when
    a reply is complete, and so holds it twice. What exists already is left out, so a collection is short. An
    application that has frozen its objects keeps them so.
    """
    before, frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    gc.collect()
    if not frozen:
        gc.freeze()
    gc.set_threshold(100, 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        if not frozen:
            gc.unfreeze()


def return_freed_memory() -> None:
    """Collect garbage, and let glibc (on Linux) return what this process has freed.

    Several threads send and receive the pieces of a model, and each thread's heap keeps what was freed in it.
    """
    gc.collect()
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@functools.cache
def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    found: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
    return found
