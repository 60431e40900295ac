"""Aggregation rules against byzfl, Flower and torch, on (n, d) float32 updates.

    python benchmarks/speed_aggregation.py [--quick]

Every side gets the input that it works on directly: byzfl a tensor, which its clients send, and an array,
Flower a list of arrays. Checks are part of our time: a rule refuses
updates that are not finite.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from bench import (
    Row,
    by_speed,
    compare,
    largest_difference,
    normal_updates,
    peer,
    same,
    show,
    skipped,
    version,
)

from fedguard import Round, make_aggregator
from fedguard.geometry.blocks import in_order

N, F = 100, 20


class Peer(NamedTuple):
    """Whom a rule is compared with; without a function where it is not installed."""

    name: str
    target: float | None
    side: Callable[[], Any] | None = None
    note: str = ""


def rows(quick: bool) -> list[Row]:
    d = 10**5 if quick else 10**6
    X = normal_updates(N, d)
    many = normal_updates(10 * N, d // 10)
    return [
        *krum(X),
        *median(X),
        *trimmed_mean(X),
        *geometric_median(X),
        *geometric_median(many, (1.0, 1.0)),
        *bulyan(quick),
    ]


def size(X: torch.Tensor) -> str:
    n, d = X.shape
    return f"{n}×10{str(len(str(d)) - 1).translate(str.maketrans('0123456789', '⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def aggregate(name: str, X: torch.Tensor, **params: Any) -> Callable[[], torch.Tensor]:
    """Our side: a fresh round each time, so that nothing is known of it."""
    rule = make_aggregator(name, **params)
    return lambda: rule(Round(X))


def byzfl(
    name: str, X: torch.Tensor, targets: tuple[float, float], note: str = "", **params: Any
) -> list[Peer]:
    """Theirs on an array and on a tensor, each with its target."""
    package = peer("byzfl")
    if package is None:
        return [Peer("byzfl", min(targets))]
    rule = getattr(package, name)(**params)
    sides = by_speed({"NumPy array": lambda: rule(X.numpy()), "torch tensor": lambda: rule(X)})
    asked = dict(zip(("NumPy array", "torch tensor"), targets, strict=True))
    return [Peer(f"{version('byzfl')} on a {kind}", asked[kind], side, note) for kind, side in sides.items()]


def flower(name: str, X: torch.Tensor, target: float, **params: Any) -> list[Peer]:
    """Theirs on a list of arrays."""
    package = peer("flwr.server.strategy.aggregate")
    if package is None:
        return [Peer("flwr", target)]
    results = [([row], 1) for row in X.numpy()]
    return [Peer(version("flwr"), target, lambda: getattr(package, name)(results, **params)[0])]


def against(
    work: str,
    ours: Callable[[], Any],
    peers: list[Peer],
    agree: Callable[[Any, Any], str] = largest_difference,
) -> list[Row]:
    return [
        compare(work, name, target, ours, side, agree, repeats=5 if target else 3, note=note)
        if side
        else skipped(work, name, target)
        for name, target, side, note in peers
    ]


def krum(X: torch.Tensor) -> list[Row]:
    work, ours = f"Krum scores and choice {size(X)}", aggregate("krum", X, num_malicious=F)
    note = "it sums over n − f − 1 neighbors, the paper over n − f − 2"
    peers = byzfl("Krum", X, (1.0, 3.0), note, f=F) + flower(
        "aggregate_krum", X, 12.0, num_malicious=F, to_keep=0
    )
    found = against(work, ours, peers, same)
    limit = compare(
        work,
        "float64 GEMM n×d×n in cache",
        0.6,
        ours,
        gemm_limit(X),
        lambda *_: "",
        note="the product alone, of blocks that lie in the cache, one per core; our product of a matrix with "
        "itself takes half of its operations",
    )
    return [*found, limit]


def gemm_limit(X: torch.Tensor) -> Callable[[], Any]:
    """2 n² d operations on one block of each core."""
    (n, d), width = X.shape, 4096
    left, right = np.ones((n, width)), np.ones((n, width))
    return lambda: sum(
        piece[0, 0] for piece in in_order(lambda _: left @ right.T, range(max(1, round(d / width))))
    )


def median(X: torch.Tensor) -> list[Row]:
    work, ours = f"median {size(X)}", aggregate("median", X)
    lower = "torch.median returns the lower of the two middle values"
    return [
        *against(work, ours, byzfl("Median", X, (30.0, 1.0)) + flower("aggregate_median", X, 20.0)),
        compare(
            work,
            f"torch.median {torch.__version__}",
            20.0,
            ours,
            lambda: torch.median(X, 0).values,
            largest_difference,
            note=lower,
        ),
    ]


def trimmed_mean(X: torch.Tensor) -> list[Row]:
    work, ours = f"trimmed mean {size(X)}", aggregate("trimmed_mean", X, num_malicious=F)
    theirs = flower("aggregate_trimmed_avg", X, 15.0, proportiontocut=F / N)
    return against(work, ours, byzfl("TrMean", X, (7.0, 1.0), f=F) + theirs)


def geometric_median(X: torch.Tensor, targets: tuple[float, float] = (5.0, 10.0)) -> list[Row]:
    note = "it takes 3 Weiszfeld steps from zero (its default), we go on until nothing moves"
    peers = byzfl("GeometricMedian", X, targets, note, nu=1e-6, T=3)
    return against(f"geometric median {size(X)}", aggregate("geometric_median", X), peers)


def bulyan(quick: bool) -> list[Row]:
    X = normal_updates(N, 10**4 if quick else 10**5)
    f = (N - 3) // 4
    return [
        compare(
            f"Bulyan {size(X)}, f = {f}",
            "Krum anew for every pick (NumPy)",
            30.0,
            aggregate("bulyan", X, num_malicious=f),
            lambda: slow_bulyan(X.numpy(), f),
            largest_difference,
            repeats=3 if quick else 5,
            note="where two values are equally close to the median, the fourth of the window may be either",
        )
    ]


def slow_bulyan(X: np.ndarray, f: int) -> np.ndarray:
    """As the paper says: θ = n − 2f times Krum's choice of what is left, then the mean around the median."""
    left = list(range(len(X)))
    chosen = []
    while len(chosen) < len(X) - 2 * f:
        some = X[left].astype(np.float64)
        some -= some.mean(0)
        products = some @ some.T
        squares = products.diagonal()
        distances = squares[:, None] + squares[None, :] - 2 * products
        np.fill_diagonal(distances, np.inf)
        scores = np.sort(distances, axis=1)[:, : max(1, len(left) - f - 2)].sum(1)
        chosen.append(left.pop(int(scores.argmin())))
    values = X[chosen].astype(np.float64)
    order = np.abs(values - np.median(values, axis=0)).argsort(axis=0)[: len(chosen) - 2 * f]
    return np.take_along_axis(values, order, axis=0).mean(0)


if __name__ == "__main__":
    show(rows("--quick" in sys.argv))
