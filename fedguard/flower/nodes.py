"""Which client a node is, and a view of the grid without those who are banned."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

from flwr.app import Message
from flwr.proto.node_pb2 import NodeInfo
from flwr.serverapp import Grid

from ..core.errors import FedGuardError

#: How clients are told apart.
Identity = Literal["auto", "key", "node"]

EVADABLE = (
    "FedGuard: clients are known by {what}, which nothing here proves to be theirs: who is banned can come "
    "back under another name. Run the SuperLink with --enable-supernode-auth and say identity='key'."
)


def client_id(node: NodeInfo, identity: Identity) -> str | None:
    """The name under which the ledger knows a node; None if it has to have a public key and has none.

    The whole key is hashed: the first bytes of PEM are the same for everybody. A simulation's nodes carry
    random bytes instead of a key.
    """
    key = bytes(node.public_key)
    if identity == "key" or (identity == "auto" and key.startswith(b"-----BEGIN")):
        return f"key-{hashlib.sha256(key).hexdigest()[:32]}" if key else None
    return f"node-{node.node_id}"


class TooFewNodesError(FedGuardError):
    """Bans leave fewer nodes than the strategy waits for."""


class GuardedGrid(Grid):
    """A grid on which banned clients do not exist.

    A strategy that waits for more nodes than bans have left would wait for ever: while nodes are kept out,
    being asked again and again for longer than ``patience`` ends in TooFewNodesError.

    Args:
        grid: Flower's grid.
        identity: how clients are told apart.
        barred: whether a client is banned.
        patience: seconds; None waits as long as the strategy does.
    """

    def __init__(
        self, grid: Grid, identity: Identity, barred: Callable[[str], bool], patience: float | None
    ) -> None:
        self._grid = grid
        self._identity = identity
        self._barred = barred
        self._patience = patience
        self._asked_since: float | None = None
        #: The client of every node that has been seen, banned ones as well.
        self.clients: dict[int, str] = {}
        #: Nodes that were kept out without a ban: they have no public key.
        self.nameless: set[int] = set()

    def get_nodes(self) -> Iterable[NodeInfo]:
        """The nodes whose clients are not banned."""
        now = time.monotonic()
        self._asked_since = self._asked_since or now
        if self._patience is not None and now - self._asked_since > self._patience:
            raise TooFewNodesError(f"too few nodes for {self._patience:g} s, with banned ones left out")
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
