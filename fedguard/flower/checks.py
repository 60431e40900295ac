"""What is refused before a federation starts."""

from __future__ import annotations

from typing import Any, Literal

from ..contracts.detector import check_needs
from ..contracts.server import Server
from ..core.errors import ParameterError
from ..guard import Guard

#: What a server may have that detectors need, beside the global model.
PARTS = ("model", "validation", "root", "training")


def one_of(name: str, value: Any, *choices: str) -> None:
    """Refuse a value that is not one of the choices (ParameterError)."""
    if value not in choices:
        raise ParameterError(f"{name} is {value!r}; use {' or '.join(map(repr, choices))}")


def at_least(name: str, value: float, least: float) -> None:
    """Refuse a number that is too small, or none (ParameterError)."""
    if not value >= least:
        raise ParameterError(f"{name} is {value}; use at least {least}")


def who_aggregates(guard: Guard, choice: Literal["inner", "guard"] | None) -> Literal["inner", "guard"]:
    """The choice, or "inner" if the guard has nothing of its own to aggregate with.

    Raises:
        ParameterError: the guard has stages or an aggregator, and nobody says what is to become of them.
    """
    if choice is not None:
        one_of("aggregate", choice, "inner", "guard")
    steps = guard.aggregation()
    if len(steps) > 1 and choice != "guard":
        raise ParameterError("the guard has stages, which work only if it aggregates: say aggregate='guard'")
    if steps[-1].name != "mean" and choice is None:
        raise ParameterError(
            f"the guard has the aggregator {steps[-1].name!r}: say aggregate='guard' to use it, or 'inner' "
            "to leave it to detectors that ask for the rule in use"
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
