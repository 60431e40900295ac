"""Compiled sorting networks (extra fast) against NumPy's sort, the fallback, and torch.median.

    python benchmarks/speed.py kernels [--quick] [--one-core]

Only the order statistics are timed, once the kernel is there; its compilation is in the note.
"""

from __future__ import annotations

import sys
import time
from unittest import mock

import torch
from bench import Row, compare, normal_updates, same, show

from fedguard.geometry import kernels, order
from fedguard.geometry.updates import Updates

SIZES = ((10, 10**6), (25, 10**6), (100, 10**4), (100, 10**6), (200, 10**5))


def rows(quick: bool) -> list[Row]:
    """Both statistics for every size; nothing without llvmlite."""
    if not kernels.available():
        return []
    found: list[Row] = []
    for n, d in ((n, d // 10 if quick else d) for n, d in SIZES):
        X = normal_updates(n, d)
        found += statistic("median", X, (n - 1) // 2)
        found += statistic("trimmed mean, 20 % cut", X, n // 5)
    return found


def statistic(name: str, X: torch.Tensor, cut: int) -> list[Row]:
    """One statistic by a kernel, by NumPy, and (the median of an odd number) by torch."""
    n, d = X.shape
    updates, low, high = Updates(X), cut, n - cut
    begin = time.perf_counter()
    kernel = kernels.Kernel(n, low, high)
    seconds = time.perf_counter() - begin
    work, note = f"{name} {n}×{d:,}", f"compiled in {seconds:.2f} s"

    def ours() -> torch.Tensor:
        with mock.patch.object(order, "kernel_for", return_value=kernel):
            return order.middle_means(updates, low, high)

    def numpy() -> torch.Tensor:
        with mock.patch.object(order, "kernel_for", return_value=None):
            return order.middle_means(updates, low, high)

    found = [compare(work, "NumPy, the fallback", None, ours, numpy, same, note=note)]
    if name == "median":
        against = "torch.median"
        found.append(compare(work, against, None, ours, lambda: torch.median(X, 0).values, no_comparison))
    return found


def no_comparison(ours: torch.Tensor, theirs: torch.Tensor) -> str:
    """torch.median takes the lower of two middle values, and here their mean is taken."""
    return "other definition"


if __name__ == "__main__":
    show(rows("--quick" in sys.argv))
