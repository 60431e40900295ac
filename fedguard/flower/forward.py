"""Prepare the replies for the inner strategy, and read its result.

The inner strategy gets the accepted replies, down-weighted as the guard decided: learned arrays in the
model's dtype, the median of the statistics, and the server's own frozen arrays and counters. Only the
learned arrays of its result are used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict

from .arrays import Layout, Malformed, read, recorded
from .replies import Reply, scaled_examples
from .spill import Spilled

if TYPE_CHECKING:
    from numpy.typing import NDArray


def handed_on(
    replies: Sequence[Reply],
    weights: Sequence[float],
    layout: Layout,
    how: Literal["examples", "delta"],
    examples: tuple[str | None, Sequence[float]],
    shared: Mapping[str, NDArray[Any]],
) -> list[Message]:
    """Return the messages of replies with a weight above 0.

    Args:
        replies: the judged replies.
        weights: their weights, in [0, 1].
        layout: the global model of the round.
        how: what a weight below 1 scales: the number of examples, or the distance to the global model.
        examples: the metric with the number of examples, and the share of them that counts for each reply.
        shared: arrays written into every reply, so that any strategy returns them: the statistics and, if the
            guard aggregates, the learned arrays of the new model.
    """
    same = {name: Array(array) for name, array in shared.items()}
    fixed = {
        name: layout.record[name] for name, role in layout.roles.items() if role in ("frozen", "counter")
    }
    aggregated = all(name in same for name, role in layout.roles.items() if role == "learned")
    weight_key, counted = examples
    out = []
    for reply, weight, share in zip(replies, weights, counted, strict=True):
        if weight > 0 and reply.message is not None:
            part = weight if how == "delta" and not aggregated else 1.0
            _replace(reply.message, layout, {**fixed, **same}, part)
            fewer = weight * share if how == "examples" else share
            if fewer < 1 and not aggregated and weight_key is not None:
                _fewer(reply.message, weight_key, fewer)
            out.append(reply.message)
    return out


def _replace(message: Message, layout: Layout, given: Mapping[str, Array], part: float) -> None:
    """Put a reply's arrays into the model's order and dtypes; strategies take both from the first reply.

    Args:
        message: the reply.
        layout: the global model.
        given: arrays that replace the client's.
        part: how far to go from the global model (0) to the client's arrays (1).
    """
    ((key, record),) = message.content.array_records.items()
    own = [name for name in layout.names if name not in layout.twins]
    found = {name: given[name] if name in given else _client(name, record, layout, part) for name in own}
    fresh = {name: found[layout.twins.get(name, name)] for name in layout.names}
    if list(record) != layout.names or any(fresh[name] is not record[name] for name in fresh):
        message.content = RecordDict({**message.content, key: recorded(fresh)})


def _client(name: str, record: ArrayRecord, layout: Layout, part: float) -> Array:
    """Return a client's learned array; the same object if it has the model's dtype and full weight."""
    own, sent = layout.arrays[name], record[name]

    def moved() -> NDArray[Any]:
        return np.asarray(own + part * (layout.sent(name, record) - own), dtype=own.dtype)

    if part < 1:  # w_global + part · (w_client − w_global)
        return Spilled(str(own.dtype), own.shape, moved) if isinstance(sent, Spilled) else Array(moved())
    return sent if sent.dtype == str(own.dtype) else Array(layout.sent(name, record))


def _fewer(message: Message, key: str, weight: float) -> None:
    ((name, record),) = message.content.metric_records.items()
    message.content = RecordDict({**message.content, name: scaled_examples(record, key, weight)})


def restored(result: ArrayRecord, layout: Layout, statistics: Mapping[str, NDArray[Any]]) -> ArrayRecord:
    """Return a strategy's result as the next global model, in the model's dtypes and order.

    Strategies average in float64 and treat counters like parameters; without this, dtypes would drift.

    Raises:
        Malformed: the arrays do not match the model, or hold NaN or Inf.
    """
    if set(result) != set(layout.names):
        raise Malformed("arrays with other names")
    fresh = {}
    for name, own in layout.arrays.items():
        if name in statistics:
            fresh[name] = Array(statistics[name])
        elif layout.roles[name] != "learned":
            fresh[name] = layout.record[name]
        elif name not in layout.twins:
            fresh[name] = _result(name, result[name], own)
    return recorded({name: fresh[layout.twins.get(name, name)] for name in layout.names})


def _result(name: str, array: Array, own: NDArray[Any]) -> Array:
    try:
        new = read(array, own)
    except Malformed as error:
        raise Malformed(f"array {name!r}, which {error}") from None
    with np.errstate(over="ignore", invalid="ignore"):
        plain = new.astype(own.dtype, copy=False)
    if not np.isfinite(plain).all():
        raise Malformed("NaN or Inf")
    return array if new.dtype == own.dtype and type(array) is Array else Array(plain)
