"""Detectors: DnC against a full SVD, and what a shared round saves.

python benchmarks/speed_detection.py [--quick]
"""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import torch
from bench import Row, compare, normal_updates, same, show
from speed_aggregation import size

from fedguard import Round, Scores, make_detector
from fedguard.core.seeds import generator

N, F = 100, 20
#: Detectors that live on the clients' distances to each other.
FIVE: list[tuple[str, dict[str, Any]]] = [
    ("krum", {"select": "krum", "num_malicious": F}),
    ("krum", {"select": "m_krum", "num_malicious": F}),
    ("krum", {"select": "multi_krum", "num_malicious": F}),
    ("flame", {}),
    ("three_sigma", {"center": "krum"}),
]


def rows(quick: bool) -> list[Row]:
    X = normal_updates(N, 10**5 if quick else 10**6)
    return [dnc(X), five(X)]


def dnc(X: torch.Tensor) -> Row:
    detector = make_detector("dnc", num_malicious=F)
    return compare(
        f"DnC {size(X)}, b = 10⁴, 5 iterations",
        "the same with torch.linalg.svd",
        2.0,
        lambda: detector(Round(X)).suspects,
        lambda: svd_suspects(X, F),
        same,
    )


def svd_suspects(X: torch.Tensor, f: int, iterations: int = 5, b: int = 10_000) -> np.ndarray:
    """Algorithm 2 of NDSS 2021 as it stands there; the same random coordinates."""
    assert X.isfinite().all()
    draw = generator(0, "dnc", 0)
    good = np.ones(len(X), dtype=bool)
    for _ in range(iterations):
        chosen = torch.randperm(X.shape[1], generator=draw)[:b]
        sample = X[:, chosen].double()
        centerd = sample - sample.mean(0)
        direction = torch.linalg.svd(centerd, full_matrices=False).Vh[0]
        scores = (centerd @ direction).square()
        good[scores.argsort()[len(X) - math.ceil(f) :]] = False
    return ~good


def five(X: torch.Tensor) -> Row:
    detectors = [make_detector(name, **params) for name, params in FIVE]
    start = torch.zeros(X.shape[1])

    def shared() -> list[Scores]:
        round = Round(X, global_params=start)
        return [detector(round) for detector in detectors]

    def separate() -> list[Scores]:
        return [detector(Round(X, global_params=start)) for detector in detectors]

    def agree(a: list[Scores], b: list[Scores]) -> str:
        return same([x.values for x in a], [x.values for x in b])

    return compare(
        f"Krum, m-Krum, Multi-Krum, FLAME, three sigma about Krum's choice, one round {size(X)}",
        "each on a round of its own",
        4.0,
        shared,
        separate,
        agree,
    )


if __name__ == "__main__":
    show(rows("--quick" in sys.argv))
