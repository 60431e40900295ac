"""Client ids: integers or strings. Ids with the same text are the same client."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

ClientId: TypeAlias = int | str


#: The maximum length of a client id: characters of a string, bits of an integer.
MAX_ID = 1000


def by_id(client_ids: Sequence[ClientId]) -> list[int]:
    """Positions sorted by client id, integers before strings."""
    return sorted(range(len(client_ids)), key=lambda i: (isinstance(client_ids[i], str), client_ids[i]))
