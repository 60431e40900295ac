"""Measure the cost of scoring."""

from __future__ import annotations

import time

import torch

from ..contracts.detector import Detector
from ..contracts.round import Round
from .core import Result


def measure_cost(detector: Detector) -> Result:
    """Time one round of n = 100, d = 100,000 relative to its Gram matrix; fails above a minute."""
    if detector.needs - {"global_params"}:
        return Result("cost", "info", "not measured: it needs more than updates and the global model")
    matrix = torch.randn((100, 100_000), generator=torch.Generator().manual_seed(0))
    round = Round(matrix, global_params=torch.zeros(100_000))
    start = time.perf_counter()
    _ = round.with_updates(matrix.clone()).updates.centered_gram
    gram = time.perf_counter() - start
    start = time.perf_counter()
    detector(round)
    seconds = time.perf_counter() - start
    text = f"{seconds:.2f} s for n = 100, d = 100,000: {seconds / gram:.1f} times a Gram matrix"
    return Result("cost", "failed" if seconds > 60 else "info", text, "Use the round's shared geometry.")
