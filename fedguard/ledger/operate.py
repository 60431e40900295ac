"""What an operator does to a ledger, on the command line and in the control room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import ParameterError
from .memory import Record
from .sqlite import SQLiteLedger

if TYPE_CHECKING:
    from ..core.ids import ClientId

#: More than any ledger holds.
_NO_BOUND = 2**53


def writable(path: Path) -> SQLiteLedger:
    """A ledger to write by hand: it evicts no client and prunes no verdict of a guard with larger bounds.

    Raises:
        LedgerError: the file cannot be opened.
    """
    return SQLiteLedger(path, keep=_NO_BOUND, max_clients=_NO_BOUND)


def ban_by_hand(ledger: SQLiteLedger, client: ClientId, by: str, why: str, rounds: int | None = None) -> str:
    """Ban a client from the next round on; returns its standing.

    Args:
        ledger: a durable ledger.
        client: its id; it need not be known.
        by: who decides.
        why: the reason.
        rounds: how many rounds it lasts; None for good.

    Raises:
        ParameterError: ``by`` or ``why`` is empty, rounds is below 1, or it is banned for that long already.
        LedgerError: the ledger cannot be written.
    """
    if not by.strip() or not why.strip():
        raise ParameterError(f"a ban of client {client} is recorded; say who decides it (by) and why")
    if rounds is not None and not 1 <= rounds < 2**53:
        raise ParameterError(f"a ban of {rounds} rounds is none; use 1 or more, or none for good")
    with ledger.transaction():
        since = ledger.next_round()
        until = None if rounds is None else since + rounds
        if ledger[client].outlasts(since, until):
            raise ParameterError(f"client {client} is {standing(ledger[client], since)}; nothing was changed")
        ledger.ban(client, since, until, f"banned by {by.strip()}: {why.strip()}", by.strip())
        return standing(ledger[client], since)


def standing(record: Record, index: int) -> str:
    """A client's standing in round ``index``, in words."""
    if record.banned_since is None:
        count = len(record.strikes)
        return f"admitted, {count} strike{'s' * (count > 1)}" if count else "admitted"
    if not record.is_banned(index):
        served = record.judged_since_ban
        return f"back since round {record.banned_until}, judged in {served} round{'s' * (served != 1)} since"
    end = "for good" if record.banned_until is None else f"until round {record.banned_until}"
    return f"banned since round {record.banned_since}, {end}"
