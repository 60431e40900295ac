"""Map nodes to clients, and hide banned clients' nodes from the strategy."""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from ..core.errors import FedGuardError
from .memory import early_collection, return_freed_memory

#: How clients are identified.
Identity = Literal["auto", "key", "node"]

EVADABLE = (
    "FedGuard: clients are identified by {what}, which is not authenticated: a banned client can come back "
    "under another name. Run the SuperLink with --enable-supernode-auth and set identity='key'."
)


log = logging.getLogger("flwr")  # Flower's own


def client_id(node: NodeInfo, identity: Identity) -> str | None:
    """Return the node's client id in the ledger; None if it needs a public key and has none.

    The whole key is hashed, as the first bytes of a PEM key are the same for every node. Simulated nodes
    carry random bytes instead of a key.
    """
    key = bytes(node.public_key)
    if identity == "key" or (identity == "auto" and key.startswith(b"-----BEGIN")):
        return f"key-{hashlib.sha256(key).hexdigest()[:32]}" if key else None
    return f"node-{node.node_id}"


class TooFewNodesError(FedGuardError):
    """With nodes left out (banned, or without a public key), too few remain for the strategy."""


class Wrapped(Grid):
    """A grid that does as another one does.

    Args:
        grid: Flower's grid.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid

    def get_nodes(self) -> Iterable[NodeInfo]:
        """As the grid does."""
        return self._grid.get_nodes()

    def get_node_ids(self) -> Iterable[int]:
        """As the grid does."""
        return self._grid.get_node_ids()

    def set_run(self, run: Any) -> None:
        """As the grid does."""
        self._grid.set_run(run)

    @property
    def run(self) -> Any:
        """As the grid does."""
        return self._grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As the grid does."""
        return self._grid.create_message(*args, **kwargs)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """As the grid does."""
        return self._grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """As the grid does."""
        return self._grid.pull_messages(message_ids)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """As the grid does."""
        return self._grid.send_and_receive(messages, timeout=timeout)


#: Seconds between two questions for replies, when there was none.
PAUSE = 1.0


class OneByOne(Wrapped):
    """A grid that pulls replies one at a time, so that no two of them are in memory together.

    Args:
        grid: Flower's grid.
        keep: called with every reply before the next one is pulled.
    """

    def __init__(self, grid: Grid, keep: Callable[[Message], None]) -> None:
        super().__init__(grid)
        self._keep = keep

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> Iterable[Message]:
        """Push all messages, and pull the replies until all are there or the time is over."""
        with early_collection():
            return self._received(messages, timeout)

    def _received(self, messages: Iterable[Message], timeout: float | None) -> list[Message]:
        end = math.inf if timeout is None else time.monotonic() + timeout
        waiting = [number for number in self._grid.push_messages(messages) if number]
        return_freed_memory()  # the serialized model
        replies: list[Message] = []
        while waiting:
            before = len(waiting)
            for number in list(waiting):
                for reply in self._grid.pull_messages([number]):
                    self._keep(reply)
                    return_freed_memory()
                    replies.append(reply)
                    waiting.remove(number)
            if time.monotonic() >= end:
                break
            if len(waiting) == before:
                time.sleep(PAUSE)
        return replies


class GuardedGrid(Wrapped):
    """A grid without the nodes of banned clients.

    A strategy that needs more nodes than remain would wait forever. While nodes are left out (banned, or
    without a public key), polling for longer than ``patience`` raises TooFewNodesError.

    Args:
        grid: Flower's grid.
        identity: how clients are identified.
        barred: whether a client is banned.
        patience: seconds.
        bans: whether any client is banned. If not, and all nodes have keys, it waits as long as the strategy
            does.
    """

    def __init__(
        self, grid: Grid, identity: Identity, barred: Callable[[str], bool], patience: float, bans: bool
    ) -> None:
        super().__init__(grid)
        self._identity = identity
        self._barred = barred
        self._patience = patience
        self._bans = bans
        self._asked_since: float | None = None
        #: The client id of every node seen so far, banned ones included.
        self.clients: dict[int, str] = {}
        #: Nodes left out because they have no public key.
        self.nameless: set[int] = set()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The nodes whose clients are not banned."""
        now = time.monotonic()
        self._asked_since = self._asked_since or now
        if (self._bans or self.nameless) and now - self._asked_since > self._patience:
            keyless = f" and {len(self.nameless)} without a public key" if self.nameless else ""
            raise TooFewNodesError(
                f"too few nodes for {self._patience:g} s, with banned ones{keyless} left out"
            )
        return [node for node in self._grid.get_nodes() if self._let_in(node)]

    def get_node_ids(self) -> Iterable[int]:
        """Their ids."""
        return [node.node_id for node in self.get_nodes()]

    def _let_in(self, node: NodeInfo) -> bool:
        client = client_id(node, self._identity)
        if client is None:
            self.nameless.add(node.node_id)
            return False
        self.clients[node.node_id] = client
        return not self._barred(client)


def warned(proxy: GuardedGrid, identity: Identity, before: bool) -> bool:
    """Log whom the grid leaves out, and once whether bans can be evaded; return whether it did so now."""
    if proxy.nameless:
        log.warning("FedGuard: %d nodes have no public key and get no messages", len(proxy.nameless))
    if before or identity == "key" or not proxy.clients:
        return False
    keyed = any(client.startswith("key-") for client in proxy.clients.values())
    log.warning(EVADABLE.format(what="public keys" if keyed else "node ids"))
    return True
