"""A Flower federation in memory: Flower's strategies and messages, functions as clients, no network."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from flwr.app import Array, ArrayRecord, Error, Message, MetricRecord, RecordDict
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

Arrays: TypeAlias = "Mapping[str, NDArray[Any]]"
#: A reply's content, an error, a whole message, or None for no reply in time.
Answer: TypeAlias = RecordDict | Error | Message | None
#: A client maps the global arrays and their message to an answer.
Client: TypeAlias = "Callable[[dict[str, NDArray[Any]], Message], Answer]"


def arrays_record(arrays: Arrays) -> ArrayRecord:
    """Return named NumPy arrays as Flower's record."""
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def reply(arrays: Arrays, examples: float = 10, **metrics: Any) -> RecordDict:
    """Return an ordinary client's reply: its arrays, its number of examples, a loss."""
    numbers = MetricRecord({"num-examples": examples, "loss": 0.5, **metrics})
    return RecordDict({"arrays": arrays_record(arrays), "metrics": numbers})


class MemoryGrid(Grid):
    """A grid whose nodes are functions; pass it to ``strategy.start``.

    Args:
        clients: node id → client; may change between rounds.
        keys: node id → public key, for nodes that have one.
    """

    def __init__(self, clients: Mapping[int, Client], keys: Mapping[int, bytes] | None = None) -> None:
        self.clients = dict(clients)
        self.keys = dict(keys or {})
        #: The nodes of every batch of messages sent.
        self.asked: list[list[int]] = []
        self._numbers = itertools.count(1)
        self._sent: dict[str, Message] = {}
        _identify()

    def get_node_ids(self) -> Iterable[int]:
        """All nodes."""
        return list(self.clients)

    def get_nodes(self) -> Iterable[NodeInfo]:
        """All nodes, with their keys."""
        return [NodeInfo(node_id=node, public_key=self.keys.get(node, b"")) for node in self.get_node_ids()]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Call the clients one by one, and return their replies."""
        numbers = list(self.push_messages(messages))
        return self.pull_messages(numbers)

    @property
    def run(self) -> Any:
        """None, as there is no run."""
        return None

    def set_run(self, run: Any) -> None:
        """Do nothing."""

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """Return a new message with these arguments."""
        return Message(*args, **kwargs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number the messages; their clients are called when their replies are pulled."""
        batch = list(messages)
        self.asked.append([message.metadata.dst_node_id for message in batch])
        for message in batch:
            message.metadata.__dict__["_message_id"] = f"message-{next(self._numbers)}"
            self._sent[message.metadata.message_id] = message
        return [message.metadata.message_id for message in batch]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Call the clients of some messages one by one, and return their replies."""
        answers = [self._answer(self._sent.pop(number)) for number in message_ids if number in self._sent]
        return [answer for answer in answers if answer is not None]

    def _answer(self, message: Message) -> Message | None:
        (record,) = message.content.array_records.values()
        arrays = {name: array.numpy() for name, array in record.items()}
        answer = self.clients[message.metadata.dst_node_id](arrays, message)
        return Message(answer, reply_to=message) if isinstance(answer, RecordDict | Error) else answer


def _identify() -> None:
    """Set the task id that newer versions of Flower require for a message."""
    try:
        from flwr.supercore.task_identity import TaskIdentity
    except ImportError:
        return
    for name in ("task_id", "run_id", "node_id"):
        if getattr(TaskIdentity, f"_{name}", 1) is None:
            setattr(TaskIdentity, name, 1)
