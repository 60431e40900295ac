"""Convert rows of a ledger's file to objects, checking every type, because SQLite does not."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import LedgerError
from .memory import Record

if TYPE_CHECKING:
    from ..core.ids import ClientId

#: Creates the error for a value that FedGuard never writes.
Fail = Callable[[str], LedgerError]
#: The allowed types of a value.
WHOLE, WHOLE_OR_NONE, NUMBER_OR_NONE, TEXT = (int,), (int, type(None)), (float, int, type(None)), (str,)


class Judgement(NamedTuple):
    """A stored verdict on one client.

    Attributes:
        round: the round.
        score: higher is more suspicious; NaN if no detector scored it, +Inf for an unusable update.
        suspect: whether it got a strike; a suspect gets none when most clients are suspects, for example.
        forgiven: whether the strike no longer counts, because of an unban.
        reason: the reason for the verdict.
    """

    round: int
    score: float
    suspect: bool
    forgiven: bool
    reason: str


class Action(NamedTuple):
    """A ban, an unban, or the erasure of a client's verdicts.

    Attributes:
        time: the time in UTC (ISO 8601).
        client: the client.
        what: "ban", "unban" or "forget".
        since: the round of the ban; for the others, the round after the last one in the ledger.
        until: the first round in which the client may return; None for a permanent ban and for the others.
        by: who decided; "guard" for a guard.
        why: the reason.
    """

    time: str
    client: ClientId
    what: str
    since: int
    until: int | None
    by: str
    why: str


def must(fail: Fail, kinds: tuple[type, ...], *values: object) -> None:
    """Check the types of values.

    Raises:
        LedgerError: a value has another type.
    """
    for value in values:
        if type(value) not in kinds:
            raise fail(f"it holds {str(value)[:60]!r} where FedGuard never writes such a value")


def client_id(fail: Fail, text: object) -> ClientId:
    """A client id from its stored JSON text.

    Raises:
        LedgerError: it is not a client id.
    """
    try:
        client: Any = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        client = None
    if type(client) not in (str, int):
        raise fail(f"{str(text)[:60]!r} is not a client id")
    return client  # type: ignore[no-any-return]


def record_of(fail: Fail, row: Sequence[Any], strikes: Sequence[Any]) -> Record:
    """A record from last_round, last_score, rounds, banned_since, banned_until, ban_reason, judged_since_ban.

    Raises:
        LedgerError: a value has the wrong type.
    """
    seen, score, rounds, since, until, reason, served = row
    must(fail, WHOLE, rounds, served, *strikes)
    must(fail, WHOLE_OR_NONE, seen, since, until)
    must(fail, NUMBER_OR_NONE, score)
    must(fail, TEXT, reason)
    last = None if seen is None else _score(score)
    return Record(rounds, list(strikes), since, until, reason, served, last, seen)


def judgement_of(fail: Fail, row: Sequence[Any]) -> Judgement:
    """A verdict from round, score, suspect, forgiven, reason (LedgerError if a value has the wrong type)."""
    index, score, suspect, forgiven, reason = row
    must(fail, WHOLE, index, suspect, forgiven)
    must(fail, NUMBER_OR_NONE, score)
    must(fail, TEXT, reason)
    return Judgement(index, _score(score), bool(suspect), bool(forgiven), reason)


def action_of(fail: Fail, row: Sequence[Any]) -> Action:
    """An action from time, id, what, since, until, by, why (LedgerError if a value has the wrong type)."""
    when, text, what, since, until, by, why = row
    must(fail, TEXT, when, what, by, why)
    must(fail, WHOLE_OR_NONE, since, until)
    return Action(when, client_id(fail, text), what, since, until, by, why)


def _score(value: float | None) -> float:
    return math.nan if value is None else float(value)
