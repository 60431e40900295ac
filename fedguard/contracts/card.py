"""The metadata card that every method carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar


@dataclass(frozen=True)
class Card:
    """What a method is called, what it does in one line, and where it comes from.

    Attributes:
        name: the name under which it is registered; lower case, words joined by underscores.
        summary: one line, for ``fedguard list``.
        paper: authors, short title, venue and year; "FedGuard" for our own.
    """

    name: str
    summary: str
    paper: str


class Method:
    """Anything that is registered by name: a detector, an attack, a policy or an aggregator."""

    card: ClassVar[Card]
    #: Parameters for the contract checks (see :mod:`fedguard.testing`), where the defaults are too slow.
    check_with: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    #: Contract checks that do not apply to the method: name of the check → why.
    exempt: ClassVar[Mapping[str, str]] = MappingProxyType({})

    @property
    def name(self) -> str:
        """The registered name."""
        return self.card.name
