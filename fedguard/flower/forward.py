"""What the inner strategy gets: accepted replies, weakened where the guard says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict

from .arrays import Layout, Malformed, read
from .replies import Reply, scaled_examples

if TYPE_CHECKING:
    from numpy.typing import NDArray


def handed_on(
    replies: Sequence[Reply],
    weights: Sequence[float],
    layout: Layout,
    how: Literal["examples", "delta"],
    weight_key: str | None,
    result: Mapping[str, NDArray[Any]] | None,
) -> list[Message]:
    """The replies whose weight is not 0.

    Args:
        replies: what was judged.
        weights: their weights, in [0, 1].
        layout: the global model of the round.
        how: what a weight below 1 changes.
        weight_key: the metric with the number of examples.
        result: the scored arrays of the new model where the guard aggregates: then everybody is said to have
            sent these, so that any strategy returns them.
    """
    shared = None if result is None else {name: Array(array) for name, array in result.items()}
    out = []
    for reply, weight in zip(replies, weights, strict=True):
        if weight > 0 and reply.message is not None:
            if shared is not None:
                _replace(reply.message, layout, shared)
            elif weight < 1 and how == "delta":
                _replace(reply.message, layout, _shortened(reply.message, layout, weight))
            else:
                _replace(reply.message, layout, {})
                if weight < 1 and weight_key is not None:
                    _fewer(reply.message, weight_key, weight)
            out.append(reply.message)
    return out


def _replace(message: Message, layout: Layout, arrays: Mapping[str, Array]) -> None:
    """Some arrays anew, and all in the model's order: strategies go by the order of the first reply."""
    ((name, record),) = message.content.array_records.items()
    if arrays or list(record) != list(layout.arrays):
        fresh = ArrayRecord({key: arrays.get(key, record[key]) for key in layout.arrays})
        message.content = RecordDict({**message.content, name: fresh})


def _shortened(message: Message, layout: Layout, weight: float) -> dict[str, Array]:
    """w_global + weight · (w_client − w_global) for all arrays of floating-point numbers."""
    (record,) = message.content.array_records.values()
    parts = {}
    for name, old in layout.arrays.items():
        new = read(record[name])
        if old.dtype.kind == "f":
            parts[name] = Array(np.asarray(old + weight * (new - old), dtype=new.dtype))
    return parts


def _fewer(message: Message, key: str, weight: float) -> None:
    ((name, record),) = message.content.metric_records.items()
    message.content = RecordDict({**message.content, name: scaled_examples(record, key, weight)})


def finite(arrays: ArrayRecord) -> bool:
    """Whether a strategy's result holds no NaN and no Inf; what cannot be read is left to Flower."""
    try:
        found = [read(array) for array in arrays.values()]
    except Malformed:
        return True
    return all(bool(np.isfinite(array).all()) for array in found)
