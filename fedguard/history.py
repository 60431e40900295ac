"""What a detector keeps by client id, bounded however many ids turn up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from .round import ClientId

V = TypeVar("V")

#: The most clients that a history keeps: whoever was not seen for longest is forgotten first. (The ledger
#: has a bound of its own.)
#: A federation of more clients raises it: ``fedguard.history.MAX_CLIENTS = 100_000``.
MAX_CLIENTS = 10_000


class History(Mapping[ClientId, V], Generic[V]):
    """A value per client, the one seen least recently first.

    Ids that read the same are the same client, as in the ledger: nobody sheds a history when 7 comes back as
    "7". Clients of the round at hand are never forgotten, so a round may have more than ``MAX_CLIENTS``.

    Args:
        pairs: (client, value), the one seen least recently first.
    """

    def __init__(self, pairs: Iterable[Iterable[object]] = ()) -> None:
        self._kept: dict[str, tuple[ClientId, V]] = {str(c): (c, v) for c, v in pairs}  # type: ignore[misc]

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
        for client in seen:
            if str(client) in self._kept:
                self._kept[str(client)] = self._kept.pop(str(client))
        for client, value in values.items():
            first, _ = self._kept.pop(str(client), (client, value))
            self._kept[str(client)] = (first, value)
        while len(self._kept) > max(MAX_CLIENTS, len(values)):
            del self._kept[next(iter(self._kept))]
