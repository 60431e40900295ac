"""A detector's values by client id, bounded for any number of ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from torch import Tensor

from .ids import ClientId

V = TypeVar("V")

#: The maximum number of clients in a history. The least recently seen client is evicted first. (The ledger
#: has its own bound.) Raise it for larger federations: ``fedguard.core.history.MAX_CLIENTS = 100_000``.
MAX_CLIENTS = 10_000
#: The maximum number of bytes in a history, 2 GiB: a client's value can be as long as the model. The least
#: recently seen client is evicted first. Raise it on servers with more memory:
#: ``fedguard.core.history.MAX_BYTES = 2**34``.
MAX_BYTES = 2**31


class History(Mapping[ClientId, V], Generic[V]):
    """Client → value, least recently seen first.

    Ids with the same text are the same client, as in the ledger: the history of 7 also belongs to "7".
    Clients of the current round are never evicted, so that a round may exceed ``MAX_CLIENTS`` and
    ``MAX_BYTES``.

    Args:
        pairs: (client, value), least recently seen first.

    Example:
        >>> from fedguard.core.history import History
        >>> history = History()
        >>> history.remember({"ann": 1.0, "bob": 2.0})
        >>> history.remember({"ann": 3.0})
        >>> dict(history)
        {'bob': 2.0, 'ann': 3.0}
    """

    def __init__(self, pairs: Iterable[Iterable[object]] = ()) -> None:
        self._kept: dict[str, tuple[ClientId, V]] = {str(c): (c, v) for c, v in pairs}  # type: ignore[misc]
        self._sizes = {key: size_of(value) for key, (_, value) in self._kept.items()}
        self._bytes = sum(self._sizes.values())

    def __getitem__(self, client: ClientId) -> V:
        return self._kept[str(client)][1]

    def __iter__(self) -> Iterator[ClientId]:
        return (client for client, _ in self._kept.values())

    def __len__(self) -> int:
        return len(self._kept)

    def of_size(self, client: ClientId, size: int) -> V | None:
        """A client's vector if it has this size, else None: the server may have changed its model."""
        kept = self.get(client)
        return kept if kept is not None and len(kept) == size else None  # type: ignore[arg-type]

    def remember(self, values: Mapping[ClientId, V], seen: Iterable[ClientId] = ()) -> None:
        """Replace the values of some clients, then evict clients beyond the bounds.

        Args:
            values: the new values.
            seen: clients that took part without a new value; their stored values also become recent.
        """
        at_hand = {str(client) for client in values}
        for client in seen:
            key = str(client)
            if key in self._kept:
                self._kept[key] = self._kept.pop(key)
                at_hand.add(key)
        for client, value in values.items():
            first, _ = self._drop(str(client)) or (client, value)
            self._keep(str(client), first, value)
        while len(self._kept) > len(at_hand) and self._too_much():
            self._drop(next(iter(self._kept)))

    def _too_much(self) -> bool:
        return len(self._kept) > MAX_CLIENTS or self._bytes > MAX_BYTES

    def _keep(self, key: str, client: ClientId, value: V) -> None:
        self._kept[key], self._sizes[key] = (client, value), size_of(value)
        self._bytes += self._sizes[key]

    def _drop(self, key: str) -> tuple[ClientId, V] | None:
        self._bytes -= self._sizes.pop(key, 0)
        return self._kept.pop(key, None)


def size_of(value: object) -> int:
    """The size of a value in bytes: exact for tensors, an upper estimate for Python objects."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, str):
        return 64 + 4 * len(value)
    parts = value.values() if isinstance(value, Mapping) else value
    return 64 + (sum(map(size_of, parts)) if isinstance(parts, Iterable) else 0)
