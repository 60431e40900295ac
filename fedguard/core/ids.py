"""Client ids: integers or strings, which read differently."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

ClientId: TypeAlias = int | str


#: The longest client id: characters of a string, bits of an integer.
MAX_ID = 1000


def by_id(client_ids: Sequence[ClientId]) -> list[int]:
    """Positions in the order of the client ids, integers before strings."""
    return sorted(range(len(client_ids)), key=lambda i: (isinstance(client_ids[i], str), client_ids[i]))
