"""What the rows of a ledger's file mean, and that every value is of its kind: SQLite checks no types."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ..core.errors import LedgerError
from .memory import Record

if TYPE_CHECKING:
    from ..core.ids import ClientId

#: Makes the error about a file that holds what FedGuard never writes.
Fail = Callable[[str], LedgerError]
#: Kinds of values.
WHOLE, WHOLE_OR_NONE, NUMBER_OR_NONE, TEXT = (int,), (int, type(None)), (float, int, type(None)), (str,)


class Judgement(NamedTuple):
    """A verdict that the ledger still has.

    Attributes:
        round: the round.
        score: higher is more suspicious; NaN if nothing scored it, +Inf for an unusable update.
        suspect: whether it was a suspect, which is a strike.
        forgiven: whether the strike no longer counts, because of an unban.
        reason: why, in words.
    """

    round: int
    score: float
    suspect: bool
    forgiven: bool
    reason: str


class Action(NamedTuple):
    """A ban or an unban.

    Attributes:
        time: when, in UTC (ISO 8601).
        client: whom.
        what: "ban" or "unban".
        since: the round of a ban; of an unban, the round after the last that the ledger knows.
        until: the first round in which it may come back; None for good (and for an unban).
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
    """Refuse values of other types.

    Raises:
        LedgerError: there is one.
    """
    for value in values:
        if type(value) not in kinds:
            raise fail(f"it holds {str(value)[:60]!r} where FedGuard writes nothing of the kind")


def client_id(fail: Fail, text: object) -> ClientId:
    """A client's id as it is stored.

    Raises:
        LedgerError: it is none.
    """
    try:
        client: Any = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        client = None
    if type(client) not in (str, int):
        raise fail(f"{str(text)[:60]!r} is no client's id")
    return client  # type: ignore[no-any-return]


def record_of(fail: Fail, row: Sequence[Any], strikes: Sequence[Any]) -> Record:
    """A record from last_round, last_score, rounds, banned_since, banned_until, ban_reason, judged_since_ban.

    Raises:
        LedgerError: a value is of another type.
    """
    seen, score, rounds, since, until, reason, served = row
    must(fail, WHOLE, rounds, served, *strikes)
    must(fail, WHOLE_OR_NONE, seen, since, until)
    must(fail, NUMBER_OR_NONE, score)
    must(fail, TEXT, reason)
    last = None if seen is None else _score(score)
    return Record(rounds, list(strikes), since, until, reason, served, last, seen)


def judgement_of(fail: Fail, row: Sequence[Any]) -> Judgement:
    """A verdict from round, score, suspect, forgiven, reason (LedgerError if a value is of another type)."""
    index, score, suspect, forgiven, reason = row
    must(fail, WHOLE, index, suspect, forgiven)
    must(fail, NUMBER_OR_NONE, score)
    must(fail, TEXT, reason)
    return Judgement(index, _score(score), bool(suspect), bool(forgiven), reason)


def action_of(fail: Fail, row: Sequence[Any]) -> Action:
    """An action from time, id, what, since, until, by, why (LedgerError if a value is of another type)."""
    when, text, what, since, until, by, why = row
    must(fail, TEXT, when, what, by, why)
    must(fail, WHOLE_OR_NONE, since, until)
    return Action(when, client_id(fail, text), what, since, until, by, why)


def _score(value: float | None) -> float:
    return math.nan if value is None else float(value)
