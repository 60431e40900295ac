"""Checks before a federation starts."""

from __future__ import annotations

from typing import Any, Literal

from ..contracts.detector import check_needs
from ..contracts.server import Server
from ..core.errors import ParameterError
from ..guard import Guard

#: Parts of the server that detectors may need, besides the global model.
PARTS = ("model", "validation", "root", "training")


def one_of(name: str, value: Any, *choices: str) -> None:
    """Raise ParameterError unless the value is one of the choices."""
    if value not in choices:
        raise ParameterError(f"{name} is {value!r}; use {' or '.join(map(repr, choices))}")


def at_least(name: str, value: float, least: float) -> None:
    """Raise ParameterError if the value is below ``least`` or NaN."""
    if not value >= least:
        raise ParameterError(f"{name} is {value}; use at least {least}")


def check_options(
    identity: str,
    reweight: str,
    on_refusal: str,
    silent: str,
    max_examples: float,
    min_clients: int,
    patience: float,
) -> None:
    """Refuse options of GuardedStrategy that are out of range (ParameterError)."""
    one_of("identity", identity, "auto", "key", "node")
    one_of("reweight", reweight, "auto", "examples", "delta")
    one_of("on_refusal", on_refusal, "keep", "pass", "raise")
    one_of("silent", silent, "suspect", "ignore")
    at_least("max_examples", max_examples, 1)
    at_least("min_clients", min_clients, 1)
    at_least("patience", patience, 0)


def who_aggregates(guard: Guard, choice: Literal["inner", "guard"] | None) -> Literal["inner", "guard"]:
    """Return the choice, or "inner" if the guard has neither stages nor an aggregator of its own.

    Raises:
        ParameterError: the guard has stages or an aggregator, and ``choice`` does not say how to use them.
    """
    if choice is not None:
        one_of("aggregate", choice, "inner", "guard")
    steps = guard.aggregation()
    if len(steps) > 1 and choice != "guard":
        raise ParameterError("the guard has stages, which work only if it aggregates; set aggregate='guard'")
    if steps[-1].name != "mean" and choice is None:
        raise ParameterError(
            f"the guard has the aggregator {steps[-1].name!r}; set aggregate='guard' to use it, or 'inner' "
            "to make it available only to detectors that use the aggregation rule"
        )
    return choice or "inner"


def needs_model(guard: Guard, server: Server, aggregates: bool) -> bool:
    """Whether a method of the guard evaluates or trains the model.

    Raises:
        NeedError: a method needs something that the server does not have.
    """
    have = frozenset({"global_params", *(part for part in PARTS if getattr(server, part) is not None)})
    methods: list[Any] = [*guard.detectors.values(), *(guard.aggregation() if aggregates else [])]
    found: set[str] = set()
    for method in methods:
        needs: frozenset[str] = getattr(method, "needs", frozenset())
        check_needs(method.name, needs, have)
        found |= needs
    return bool(found & set(PARTS))
