"""The robust aggregators at many sizes, each against the fastest peer: nowhere slower.

    python benchmarks/speed.py sizes [--quick] [--one-core]

The peers are byzfl on arrays and on tensors, and for the median torch.median. The first call of every pair is
not counted; compiled kernels (extra ``fast``) get ready meanwhile, where the work is enough for one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from bench import Row, by_speed, compare, largest_difference, normal_updates, peer, show, skipped, version
from speed_aggregation import aggregate, size

CLIENTS, PARAMETERS, MOST = (10, 25, 100, 250, 1000), (10**4, 10**5, 10**6), 10**8
#: Our name, byzfl's, and byzfl's parameters for f attackers.
RULES: dict[str, tuple[str, Callable[[int], dict[str, Any]]]] = {
    "median": ("Median", lambda f: {}),
    "trimmed_mean": ("TrMean", lambda f: {"f": f}),
    "geometric_median": ("GeometricMedian", lambda f: {"nu": 1e-6, "T": 3}),
    "krum": ("Krum", lambda f: {"f": f}),
}


def rows(quick: bool) -> list[Row]:
    """Every rule at every size; a fifth of the clients are taken for malicious."""
    sizes = [(n, d) for d in PARAMETERS for n in CLIENTS if n * d <= (10**6 if quick else MOST)]
    return [row for n, d in sizes for row in _rules(normal_updates(n, d))]


def _rules(X: torch.Tensor) -> Iterator[Row]:
    f = len(X) // 5
    for name, (theirs, params) in RULES.items():
        told = {"num_malicious": f} if name in ("trimmed_mean", "krum") else {}
        yield _row(f"{name.replace('_', ' ')} {size(X)}", aggregate(name, X, **told), theirs, params(f), X)


def _row(work: str, ours: Callable[[], Any], theirs: str, params: dict[str, Any], X: torch.Tensor) -> Row:
    package = peer("byzfl")
    if package is None:
        return skipped(work, "byzfl", 1.0)
    rule, array = getattr(package, theirs)(**params), X.numpy()
    sides = {"byzfl on an array": lambda: rule(array), "byzfl on a tensor": lambda: rule(X)}
    if theirs == "Median":
        sides["torch.median"] = lambda: torch.median(X, 0).values
    (against, side), *_ = by_speed(sides).items()
    return compare(
        work,
        f"{against} ({version('byzfl')})" if "byzfl" in against else against,
        1.0,
        ours,
        side,
        largest_difference,
    )


if __name__ == "__main__":
    show(rows("--quick" in sys.argv))
