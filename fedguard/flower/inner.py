"""What the guard must know of the strategy that it wraps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from flwr.app import Message
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from ..core.errors import ParameterError, SecureAggregationError
from .replies import SECURE_AGGREGATION

#: Strategies that take order statistics or distances: the number of examples does not weaken an update there.
_ORDER = (flower.FedMedian, flower.FedTrimmedAvg, flower.MultiKrum, flower.Bulyan, flower.QFedAvg)
_MINIMUMS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")


def check_inner(inner: Any) -> None:
    """Refuse what cannot be guarded.

    Raises:
        SecureAggregationError: secure aggregation hides the individual updates.
        ParameterError: it is no message-based strategy, or its replies are no updates of a model.
    """
    if "secagg" in type(inner).__name__.lower():
        raise SecureAggregationError(HIDDEN)
    if not isinstance(inner, Strategy):
        raise ParameterError(
            f"inner is a {type(inner).__name__}; a strategy of flwr.serverapp.strategy is needed"
        )
    if isinstance(inner, flower.FedXgbBagging | flower.FedXgbCyclic):
        raise ParameterError(
            "inner is about trees: its replies are no updates of a model, and cannot be scored"
        )


#: Why the guard and secure aggregation exclude each other.
HIDDEN = (
    "secure aggregation is in use: it shows the server nothing but the sum of all updates, so nobody can say "
    "which client sent what; switch it off to guard this federation, or aggregate without a guard"
)


def check_messages(messages: list[Message]) -> None:
    """Refuse messages of secure aggregation, and two for one node.

    Raises:
        SecureAggregationError: the messages are those of secure aggregation.
        ParameterError: a node is asked twice.
    """
    if any(m.has_content() and SECURE_AGGREGATION in m.content for m in messages):
        raise SecureAggregationError(HIDDEN)
    nodes = [m.metadata.dst_node_id for m in messages]
    if len(set(nodes)) < len(nodes):
        raise ParameterError("the inner strategy asks a node twice in a round; each may send one update")


def chain(inner: Strategy) -> Iterator[Strategy]:
    """The strategy, and those it wraps itself (differential privacy does)."""
    current: Any = inner
    while isinstance(current, Strategy):
        yield current
        current = current.__dict__.get("strategy")


def weight_key(inner: Strategy) -> str | None:
    """The metric that the strategy weights clients by, None if it has none."""
    return next((s.weighted_by_key for s in chain(inner) if hasattr(s, "weighted_by_key")), None)


def honored(inner: Strategy) -> Literal["examples", "delta"]:
    """What weakens an update here: fewer examples where the strategy averages by them, else a shorter way."""
    weighted = isinstance(inner, flower.FedAvg) and not isinstance(inner, _ORDER)
    known = type(inner).aggregate_train.__module__.startswith("flwr.")  # else: who knows how it aggregates
    return "examples" if weighted and known else "delta"


@contextmanager
def lowered(inner: Strategy, by: int, floor: int) -> Iterator[None]:
    """For the time of a block, the strategy waits for so many nodes less: the banned ones will not come."""
    before = [
        (s, name, value)
        for s in chain(inner)
        for name in _MINIMUMS
        if isinstance(value := getattr(s, name, None), int)
    ]
    try:
        for s, name, value in before:
            setattr(s, name, min(value, max(floor, value - by)))
        yield
    finally:
        for s, name, value in before:
            setattr(s, name, value)
