"""A ledger by the page, for screens: a hundred thousand clients are never read at once."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from ..core.errors import ParameterError
from .memory import Record
from .rows import Action, Judgement, client_id

if TYPE_CHECKING:
    from ..core.ids import ClientId
    from .sqlite import SQLiteLedger

#: The most entries of a page.
MAX_PAGE = 1000
_IN_FORCE = "(banned_since IS NOT NULL AND (banned_until IS NULL OR banned_until > ?1))"
#: The standings to choose from → the condition in SQL; ?1 is the next round.
STANDINGS = {
    "all": "1",
    "banned": _IN_FORCE,
    "back": f"(banned_since IS NOT NULL AND NOT {_IN_FORCE})",
    "admitted": "banned_since IS NULL",
}


class Entry(NamedTuple):
    """One client.

    Attributes:
        number: its row, which names it in a link; its id may be any text.
        client: its id.
        record: its record.
    """

    number: int
    client: ClientId
    record: Record


class Page(NamedTuple):
    """Some clients of one snapshot.

    Attributes:
        next_round: the round after the last one in which any client was judged.
        clients: how many clients the ledger has.
        banned: how many of them are banned in that round.
        found: how many match.
        entries: those of this page.
    """

    next_round: int
    clients: int
    banned: int
    found: int
    entries: list[Entry]


class Story(NamedTuple):
    """Everything about one client, of one snapshot."""

    next_round: int
    entry: Entry
    judgements: list[Judgement]
    actions: list[Action]


def page(ledger: SQLiteLedger, offset: int, limit: int, standing: str = "all", search: str = "") -> Page:
    """Clients in this order: banned, back from a ban, then by their latest score, most suspicious first.

    Args:
        ledger: a durable ledger.
        offset: how many to skip.
        limit: how many to return, at most :data:`MAX_PAGE`.
        standing: "all", "banned", "back" (from a ban) or "admitted".
        search: a part of the client's id.

    Raises:
        ParameterError: an unknown standing, or a number out of bounds.
        LedgerError: the ledger cannot be read.
    """
    if standing not in STANDINGS:
        raise ParameterError(f"no standing {standing!r}; there are {', '.join(STANDINGS)}")
    if not (0 <= offset < 2**53 and 1 <= limit <= MAX_PAGE):
        raise ParameterError(f"offset must be 0 or more, and limit 1 to {MAX_PAGE}")
    with ledger.reading() as db:
        now = ledger.next_round()
        (known,) = db.execute("SELECT count(*) FROM clients").fetchone()
        (banned,) = db.execute(f"SELECT count(*) FROM clients WHERE {_IN_FORCE}", (now,)).fetchone()  # noqa: S608
        which = f"FROM clients WHERE {STANDINGS[standing]} AND (?2 = '' OR instr(key, ?2))"
        values = now, json.dumps(search)[1:-1]
        (found,) = db.execute(f"SELECT count(*), ?1 {which}", values).fetchone()[:1]
        order = f"ORDER BY {_IN_FORCE} DESC, banned_since IS NULL, last_score DESC, client"
        rows = db.execute(
            f"SELECT client {which} {order} LIMIT ?3 OFFSET ?4",
            (*values, limit, offset),
        ).fetchall()
        entries = [Entry(number, *ledger.row(number)) for (number,) in rows]
    return Page(now, known, banned, found, entries)


def story(ledger: SQLiteLedger, number: int) -> Story:
    """The record, verdicts and actions of the client in this row.

    Raises:
        ParameterError: there is no such row.
        LedgerError: the ledger cannot be read.
    """
    if not 0 <= number < 2**63:
        raise ParameterError(f"ledger {ledger.path} has no client in row {number}")
    with ledger.reading() as db:
        row = db.execute("SELECT id FROM clients WHERE client = ?", (number,)).fetchone()
        if row is None:
            raise ParameterError(f"ledger {ledger.path} has no client in row {number} any more")
        client = client_id(ledger.foreign, row[0])
        return Story(
            ledger.next_round(),
            Entry(number, *ledger.row(number)),
            ledger.judgements(client),
            ledger.actions(client),
        )
