"""What a detector keeps by client id, bounded however many ids turn up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from torch import Tensor

from .ids import ClientId

V = TypeVar("V")

#: The most clients that a history keeps: whoever was not seen for longest is forgotten first. (The ledger
#: has a bound of its own.)
#: A federation of more clients raises it: ``fedguard.core.history.MAX_CLIENTS = 100_000``.
MAX_CLIENTS = 10_000
#: The most bytes that a history keeps, 2 GiB: what is kept of a client can be as long as the model. Whoever
#: was not seen for longest is forgotten first. A server with more memory raises it:
#: ``fedguard.core.history.MAX_BYTES = 2**34``.
MAX_BYTES = 2**31


class History(Mapping[ClientId, V], Generic[V]):
    """A value per client, the one seen least recently first.

    Ids that read the same are the same client, as in the ledger: nobody sheds a history when 7 comes back as
    "7". Clients of the round at hand are never forgotten, so a round may have more than ``MAX_CLIENTS``, and
    take more than ``MAX_BYTES``.

    Args:
        pairs: (client, value), the one seen least recently first.
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
        """A client's vector, if there is one of this size: the server may have changed its model."""
        kept = self.get(client)
        return kept if kept is not None and len(kept) == size else None  # type: ignore[arg-type]

    def remember(self, values: Mapping[ClientId, V], seen: Iterable[ClientId] = ()) -> None:
        """Replace the values of some clients, then forget whoever is too many.

        Args:
            values: the new values.
            seen: clients that took part without a new value; what is kept of them counts as seen as well.
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
    """The bytes that a value takes, about: of tensors exactly, of Python's objects what they take at most."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, str):
        return 64 + 4 * len(value)
    parts = value.values() if isinstance(value, Mapping) else value
    return 64 + (sum(map(size_of, parts)) if isinstance(parts, Iterable) else 0)
