"""Erasing what a ledger knows of a client's behavior."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from ..core.errors import ParameterError
from .memory import GUARD

if TYPE_CHECKING:
    from ..core.ids import ClientId

#: What stands where a reason was erased.
ERASED = "erased"
#: The last round stays: rounds are numbered by it.
_RECORD = (
    "UPDATE clients SET rounds = 0, last_score = NULL, "
    "ban_reason = CASE WHEN banned_since IS NULL THEN '' ELSE ? END WHERE client = ?"
)
#: A guard's reasons quote scores; those of an operator stay.
_REASONS = "UPDATE actions SET why = ? WHERE client = ? AND by = ?"
#: Erase verdicts before a round; the subquery lets SQLite seek each client's instead of reading all.
ERASE_OLD = "DELETE FROM verdicts WHERE client IN (SELECT client FROM clients) AND round < ?"


def check_forget(client: ClientId, by: str, why: str) -> None:
    """Raise ParameterError if ``by`` or ``why`` is empty."""
    if not by.strip() or not why.strip():
        raise ParameterError(f"forgetting client {client} is recorded; say who decides it (by) and why")


def erase(db: sqlite3.Connection, key: str, unknown: ParameterError) -> tuple[int, int]:
    """Erase a client's verdicts, scores and reasons; return its row, and how many verdicts there were.

    Args:
        db: inside a transaction that writes.
        key: the client's key.
        unknown: what to raise if there is no such client.
    """
    found = db.execute("SELECT client FROM clients WHERE key = ?", (key,)).fetchone()
    if found is None:
        raise unknown
    db.execute("PRAGMA secure_delete = ON")  # overwrite, rather than mark as free
    gone = db.execute("DELETE FROM verdicts WHERE client = ?", found).rowcount
    db.execute(_RECORD, (ERASED, *found))
    db.execute(_REASONS, (ERASED, *found, GUARD))
    return int(found[0]), gone
