"""The partition contract as checks."""

from __future__ import annotations

import contextlib
import functools
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..core.errors import ParameterError
from ..core.params import check_params
from ..simulation.partitions import Split, partitions
from ..simulation.partitions.base import checked_split
from ..simulation.parts import asked
from .core import Check, MethodCheck, Report, Untouched, name_of, require, run
from .federation import digits

#: The numbers of clients to try. A partition may refuse some of them.
CLIENTS = (1, 2, 7, 20)
SIZE, CLASSES = 400, 10


@functools.cache
def labels() -> NDArray[np.int64]:
    """(400,) labels of ten classes, whose numbers have gaps; some classes are rarer than others."""
    rng = np.random.default_rng(0)
    share = np.arange(1, CLASSES + 1) / np.arange(1, CLASSES + 1).sum()
    drawn: NDArray[np.int64] = rng.permutation(
        np.concatenate([np.arange(CLASSES), rng.choice(CLASSES, SIZE - CLASSES, p=share)])
    )
    drawn = drawn * 2 + (drawn > 4)
    drawn.setflags(write=False)
    return drawn


@dataclass(frozen=True)
class Case:
    """A partition and its parameters for the checks."""

    maker: Callable[..., Any]
    params: Mapping[str, Any]

    @property
    def name(self) -> str:
        """What messages call it."""
        return name_of(self.maker)

    def make(self, n: int, seed: int = 0, size: int = SIZE) -> Any:
        """What it returns for the first ``size`` of the labels, with 30 natural clients."""
        offers = {
            "labels": labels()[:size],
            "n": n,
            "rng": np.random.default_rng(seed),
            "groups": np.arange(size) % 30,
        }
        params = check_params(self.maker, self.params, f"partition {self.name}", partitions.offers)
        return self.maker(**asked(self.maker, offers), **params)

    def splits(self, seed: int = 0) -> Iterator[tuple[int, Split]]:
        """Each number of clients that it does not refuse, and the split."""
        for n in CLIENTS:
            try:
                made = self.make(n, seed)
            except ParameterError:
                continue
            yield n, checked_split(made, self.name, SIZE, n)


def checks(method: Callable[..., Any] | str, params: Mapping[str, Any] | None = None) -> list[MethodCheck]:
    """Every check of a partition."""
    maker = partitions.get(method) if isinstance(method, str) else method
    case = Case(maker, dict(params or {}))
    return [MethodCheck(maker, name, check, case) for name, check in CHECKS.items()]


def check_partition(method: Callable[..., Any] | str, params: Mapping[str, Any] | None = None) -> Report:
    """Run all contract checks on a partition: a function, a registered name or "module:function"."""
    maker = partitions.get(method) if isinstance(method, str) else method
    return run(maker, CHECKS, Case(maker, dict(params or {})), params or {})


def documented(case: Case) -> None:
    """It says what it does, and describes every parameter that users set, under "Args:" as "name: text"."""
    text = inspect.getdoc(case.maker) or ""
    require(text, "it has no docstring")
    own = [
        p.name
        for p in inspect.signature(case.maker).parameters.values()
        if p.name not in partitions.offers and p.kind is not p.VAR_KEYWORD
    ]
    missing = [name for name in own if not re.search(rf"^ +{name}: \S", text, re.MULTILINE)]
    require(not missing, f"its docstring does not describe {', '.join(missing)}")


def annotated(case: Case) -> None:
    """Every parameter that users set has a type, which values from YAML are checked against."""
    for parameter in inspect.signature(case.maker).parameters.values():
        if parameter.name in partitions.offers or parameter.kind is parameter.VAR_KEYWORD:
            continue
        require(parameter.kind is not parameter.VAR_POSITIONAL, f"it takes *{parameter.name}")
        require(parameter.annotation is not parameter.empty, f"parameter {parameter.name} has no type")


def everybody(case: Case) -> None:
    """Every client gets at least one sample, and no sample has two owners.

    Return a list of n arrays of positions, or raise ParameterError and say what to change.
    """
    found = [n for n, _ in case.splits()]
    if not found:
        case.make(CLIENTS[-1])  # raises what it raises
    require(found, "it refuses every number of clients")


def few_samples(case: Case) -> None:
    """More clients than samples are refused.

    Raise fedguard's ParameterError, or return an empty part, which FedGuard refuses.
    """
    with contextlib.suppress(ParameterError):
        checked_split(case.make(6, size=5), case.name, 5, 6)


def repeatable(case: Case) -> None:
    """The same generator gives the same parts. Draw from `rng` alone, and do not depend on set order."""
    for (_, one), (_, other) in zip(case.splits(), case.splits(), strict=True):
        same = all(map(np.array_equal, one.parts, other.parts))
        require(same, "the same seed gives other parts")


def seeded(case: Case) -> None:
    """If it asks for `rng`, another seed gives other parts. Else leave `rng` out of its parameters."""
    if "rng" not in inspect.signature(case.maker).parameters:
        return
    pairs = zip(case.splits(0), case.splits(1), strict=False)
    differs = [
        not all(map(np.array_equal, one.parts, other.parts)) for (n, one), (_, other) in pairs if n > 1
    ]
    require(not differs or any(differs), "it asks for `rng`, but every seed gives the same parts")


def untouched(case: Case) -> None:
    """It changes neither the labels nor global state. Copy before you sort; draw from `rng`."""
    guard = Untouched(labels=labels())
    for _ in case.splits():
        pass
    guard.verify()


def changes(case: Case) -> None:
    """If it changes inputs: the same shape and type, finite, the same bits again, and its input untouched.

    Return a new tensor, and draw from the generator that you get.
    """
    pixels = digits().pixels[:16].clone()
    for n, split in case.splits():
        if split.change is None:
            continue
        guard = Untouched(pixels=pixels)
        for client in {0, n - 1}:
            one, other = (
                split.change(client, pixels, torch.Generator().manual_seed(client)) for _ in range(2)
            )
            require(isinstance(one, torch.Tensor), f"it made a {type(one).__name__}, not a tensor")
            require(one.shape == pixels.shape, f"it made shape {tuple(one.shape)} of {tuple(pixels.shape)}")
            require(one.dtype == pixels.dtype, f"it made {one.dtype} of {pixels.dtype}")
            require(torch.isfinite(one).all(), "it made infinite values or NaN")
            require(torch.equal(one, other), "the same generator gives other inputs")
        guard.verify()


CHECKS: dict[str, Check] = {
    "docstring": documented,
    "types of the parameters": annotated,
    "a part for everybody": everybody,
    "too few samples": few_samples,
    "the same seed": repeatable,
    "another seed": seeded,
    "nothing else changes": untouched,
    "changed inputs": changes,
}
