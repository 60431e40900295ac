"""Checks and properties of the strategy that the guard wraps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from flwr.app import Message
from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from ..core.errors import ParameterError, SecureAggregationError
from .replies import SECURE_AGGREGATION

#: Strategies based on order statistics or distances: fewer examples do not down-weight an update there.
_ORDER = (flower.FedMedian, flower.FedTrimmedAvg, flower.MultiKrum, flower.Bulyan, flower.QFedAvg)
_MINIMUMS = ("min_train_nodes", "min_evaluate_nodes", "min_available_nodes")


def check_inner(inner: Any) -> None:
    """Refuse strategies that cannot be guarded.

    Raises:
        SecureAggregationError: secure aggregation hides the individual updates.
        ParameterError: it is not a message-based strategy, or its replies are not model updates.
    """
    if "secagg" in type(inner).__name__.lower():
        raise SecureAggregationError(HIDDEN)
    if not isinstance(inner, Strategy):
        raise ParameterError(
            f"inner is a {type(inner).__name__}; a strategy of flwr.serverapp.strategy is needed"
        )
    if isinstance(inner, flower.FedXgbBagging | flower.FedXgbCyclic):
        raise ParameterError("inner trains trees: its replies are not model updates and cannot be scored")


#: Why a guard cannot work with secure aggregation.
HIDDEN = (
    "secure aggregation is in use: it shows the server nothing but the sum of all updates, so no detector "
    "can score single clients; switch it off to guard this federation, or aggregate without a guard"
)


def check_messages(messages: list[Message]) -> None:
    """Refuse messages of secure aggregation, and two messages for one node.

    Raises:
        SecureAggregationError: the messages belong to secure aggregation.
        ParameterError: a node gets two messages.
    """
    if any(m.has_content() and SECURE_AGGREGATION in m.content for m in messages):
        raise SecureAggregationError(HIDDEN)
    nodes = [m.metadata.dst_node_id for m in messages]
    if len(set(nodes)) < len(nodes):
        raise ParameterError("the inner strategy asks a node twice in a round; each may send one update")


def chain(inner: Strategy) -> Iterator[Strategy]:
    """Yield the strategy and those it wraps in turn, as differential privacy does."""
    current: Any = inner
    while isinstance(current, Strategy):
        yield current
        current = current.__dict__.get("strategy")


def weight_key(inner: Strategy) -> str | None:
    """Return the name of the metric that the strategy weights clients by; None if it has none."""
    return next((s.weighted_by_key for s in chain(inner) if hasattr(s, "weighted_by_key")), None)


def honored(inner: Strategy) -> Literal["examples", "delta"]:
    """How to down-weight an update: "examples" if the strategy averages by them, else "delta"."""
    weighted = isinstance(inner, flower.FedAvg) and not isinstance(inner, _ORDER)
    known = type(inner).aggregate_train.__module__.startswith("flwr.")  # a user's own may ignore examples
    return "examples" if weighted and known else "delta"


@contextmanager
def lowered(inner: Strategy, by: int, floor: int) -> Iterator[None]:
    """Within the block, the strategy waits for ``by`` fewer nodes, as banned ones will not come."""
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
