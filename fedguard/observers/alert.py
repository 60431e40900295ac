"""An alert: what a person should know about a round, with what clients chose escaped."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from .events import value

Kind = Literal["ban", "mass_suspicion", "refused_round", "drift"]
#: The kinds of alerts.
KINDS: tuple[Kind, ...] = get_args(Kind)
_TITLES = {
    "ban": "clients banned",
    "mass_suspicion": "many clients suspected",
    "refused_round": "a round was refused",
    "drift": "the global model moved unusually",
}
#: Most client ids in an alert, and most characters of each.
MAX_IDS, MAX_ID = 20, 60
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.:+")


@dataclass(frozen=True)
class Alert:
    """What a person should know about a round.

    Attributes:
        kind: one of :data:`KINDS`.
        round: the number of the round.
        text: one sentence; ids in it are escaped as by :func:`escaped`.
        clients: the ids concerned, escaped, at most :data:`MAX_IDS`.
        facts: numbers: what was measured, and the limit.
        suppressed: how many alerts of this kind the rate limit has held back since the last one sent.
    """

    kind: Kind
    round: int
    text: str
    clients: tuple[str, ...] = ()
    facts: dict[str, float] = field(default_factory=dict)
    suppressed: int = 0

    @property
    def title(self) -> str:
        """A few words without anything that a client chose."""
        return f"{_TITLES[self.kind]} (round {self.round})"

    def as_json(self) -> dict[str, Any]:
        """The alert as JSON values; +Inf is the string "inf", NaN is null."""
        return {
            "event": "alert",
            "kind": self.kind,
            "round": self.round,
            "title": self.title,
            "text": self.text,
            "clients": list(self.clients),
            "facts": {name: value(number) for name, number in self.facts.items()},
            "suppressed": self.suppressed,
        }


def escaped(client: object) -> str:
    r"""A client's id in letters, digits and ``-_.:+`` only, others as ``\x40`` or ``\u2028``; cut if long.

    So an id cannot break a line, mention a channel, or look like a link or markup where the alert is read.

    Example:
        >>> from fedguard.observers.alert import escaped
        >>> print(escaped("<!channel> ann"))
        \x3c\x21channel\x3e\x20ann
    """
    text = str(client)
    shown = "".join(c if c in _PLAIN else _code(ord(c)) for c in text[:MAX_ID])
    return shown + ("…" if len(text) > MAX_ID else "")


def _code(point: int) -> str:
    return f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}" if point < 65536 else f"\\U{point:08x}"
