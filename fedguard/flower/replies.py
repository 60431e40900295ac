"""Match replies to nodes and find their faults. Everything a client sends is untrusted."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from ..exchange.array_like import Misfit
from .arrays import Layout, Malformed, clean

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: SecAgg+'s record name in messages and replies.
SECURE_AGGREGATION = "secaggplus_configs"

#: Smallest number of examples; with far smaller ones, a strategy that divides by their sum divides by 0.
LEAST = 1e-9

#: The fault of a node that did not reply.
SILENT = "no reply in time"


@dataclass
class Reply:
    """The reply of one node, or its absence.

    Attributes:
        node: its node id.
        message: its reply, if there is exactly one.
        fault: what is wrong with it; None if nothing is.
        kind: the class of the fault; if *all* replies have one class of fault, no client is at fault.
        examples: the number of examples it claims.
        aside: True if it is ignored without blaming the client, as the fault cannot be attributed.
    """

    node: int
    message: Message | None = None
    fault: str | None = None
    kind: str = ""
    examples: float = 1.0
    aside: bool = False

    def blame(self, kind: str, fault: str) -> None:
        """Record a fault of the reply."""
        self.kind, self.fault = kind, fault


def received(asked: Sequence[Message], replies: Iterable[Message]) -> list[Reply]:
    """Return one entry per asked node, in that order.

    A reply belongs to the node that got the message it answers; the sender it names must be that node. Two
    replies in one node's name are both ignored: at least one is forged, and it is unknown which.
    """
    nodes = {m.metadata.message_id: m.metadata.dst_node_id for m in asked if m.metadata.message_id}
    found: dict[int, list[Message]] = {m.metadata.dst_node_id: [] for m in asked}
    for reply in replies:
        named = reply.metadata.src_node_id
        node = nodes.get(reply.metadata.reply_to_message_id, None if nodes else named)
        if node in found:
            found[node].append(reply)
    return [_reply(node, messages) for node, messages in found.items()]


def _reply(node: int, messages: list[Message]) -> Reply:
    if not messages:
        return Reply(node, fault=SILENT, kind="silent")
    if len(messages) > 1:
        return Reply(node, fault=f"{len(messages)} replies in its name", aside=True)
    message = messages[0]
    if message.has_error():
        reason = clean(message.error.reason) or message.error.code
        return Reply(node, fault=f"error reply: {reason}", kind="error")
    if not message.has_content() or not message.content:
        return Reply(node, fault="empty reply", kind="records")
    if message.metadata.src_node_id != node:
        return Reply(node, fault="its reply names another node as its sender", kind="sender")
    return Reply(node, message)


def shared_fault(replies: Sequence[Reply]) -> str | None:
    """Return the fault that all of at least two replies share, else None.

    Such a fault lies in the client app or on the server, so no client is banned for it.
    """
    kinds = {reply.kind if reply.fault is not None else None for reply in replies}
    if len(replies) < 2 or len(kinds) > 1 or None in kinds:
        return None
    return f"all {len(replies)} replies have the same fault, so it is no client's: {replies[0].fault}"


def hides_updates(replies: Sequence[Reply]) -> bool:
    """Whether most replies belong to secure aggregation."""
    contents = [r.message.content for r in replies if r.message is not None]
    return 2 * sum(SECURE_AGGREGATION in content for content in contents) > len(contents)


def check_metrics(replies: Sequence[Reply], weight_key: str | None, most: float = math.inf) -> None:
    """Find faults in the metrics: every reply needs exactly one metric record, all with the same keys.

    The keys that most clients send are the right ones.

    Args:
        replies: only those without a fault are checked; their ``examples`` are filled in.
        weight_key: the entry with the number of examples; None if the strategy uses none.
        most: the largest number of examples to accept.
    """
    for reply in _good(replies):
        try:
            fault = _metric_fault(reply, weight_key, most)
        except Exception as error:  # untrusted record: anything may be raised
            fault = f"metrics that cannot be read ({type(error).__name__})"
        if fault is not None:
            reply.blame("metrics", fault)
    forms = Counter(_form(_content(reply)) for reply in _good(replies))
    usual = min(forms, key=lambda form: (-forms[form], sorted(map(str, form))), default=None)
    for reply in _good(replies):
        if _form(_content(reply)) != usual:
            reply.blame("other metrics", "its metrics are not those that the other clients report")


def check_arrays(
    replies: Sequence[Reply],
    layout: Layout,
    matrix: NDArray[np.float32],
    statistics: NDArray[np.float64],
) -> None:
    """Write updates and statistics into their matrix rows, and record a fault where arrays do not fit."""
    for row, own, reply in zip(matrix, statistics, replies, strict=True):
        row[:], own[:] = 0, 0
        if reply.fault is not None:
            continue
        try:
            layout.fill(row, own, array_record(_content(reply)))
        except Misfit as misfit:
            reply.blame(misfit.kind, str(misfit))
        except Exception as error:  # untrusted record: anything may be raised
            reply.blame("bytes", f"its arrays cannot be read ({type(error).__name__})")
        if reply.fault is not None:
            row[:], own[:] = 0, 0


def array_record(content: RecordDict) -> ArrayRecord:
    """Return the arrays of a reply; raise Malformed if it has no record of them, or several."""
    records = list(content.array_records.values())
    if len(records) != 1:
        text = f"{len(records)} array records instead of one" if records else "no arrays"
        raise Malformed(text, "records")
    return records[0]


def check_record_names(replies: Sequence[Reply]) -> None:
    """Find replies whose record name differs from most; strategies use the first reply's name for all."""
    names = Counter(tuple(_content(reply).array_records) for reply in _good(replies))
    usual = min(names, key=lambda name: (-names[name], name), default=None)
    for reply in _good(replies):
        if tuple(_content(reply).array_records) != usual:
            reply.blame("record name", "its array record has another name than those of the other clients")


def _good(replies: Sequence[Reply]) -> list[Reply]:
    return [reply for reply in replies if reply.fault is None]


def _content(reply: Reply) -> RecordDict:
    assert reply.message is not None  # noqa: S101 - a reply without a fault has a message
    return reply.message.content


def _metric_fault(reply: Reply, weight_key: str | None, most: float) -> str | None:
    records = list(_content(reply).metric_records.values())
    if len(records) != 1:
        return f"{len(records)} metric records instead of one" if records else "no metrics"
    (record,) = records
    for key, value in record.items():
        if not all(abs(v) <= sys.float_info.max for v in _numbers(value)):
            return f"metric '{clean(key, 40)}' is not finite"
    if weight_key is None:
        return None
    count: Any = record.get(weight_key)
    if count is None or isinstance(count, list):
        return f"no number {weight_key!r} in its metrics"
    if not LEAST <= count <= most:
        return f"claims {count:g} examples" + (f", more than {most:g}" if count > most else "")
    reply.examples = float(count)
    return None


def _numbers(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _form(content: RecordDict) -> frozenset[tuple[str, str, int]]:
    """Return what must be equal in all replies: record and metric names, and list lengths (−1: none)."""
    return frozenset(
        (name, key, len(value) if isinstance(value, list) else -1)
        for name, record in content.metric_records.items()
        for key, value in record.items()
    )


def scaled_examples(record: MetricRecord, key: str, weight: float) -> MetricRecord:
    """Return a copy of a metric record with the number of examples multiplied by ``weight``."""
    copy = MetricRecord(dict(record))
    copy[key] = float(weight * copy[key])  # type: ignore[operator]  # checked: a number
    return copy
