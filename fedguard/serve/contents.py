"""What the control room shows, as JSON values: pages of clients, one client's story, the latest rounds."""

from __future__ import annotations

import math
from typing import Any

from ..ledger.memory import GUARD, Record
from ..ledger.operate import standing
from ..ledger.pages import Entry, Page, Story, page, story
from ..ledger.rows import Action, Judgement
from ..ledger.sqlite import SQLiteLedger

#: The most verdicts of a client that are shown, latest first.
VERDICTS = 200
#: The most ids that a round lists by name.
NAMED = 20
_LONGEST_NAME = 200


def overview(
    ledger: SQLiteLedger, offset: int, limit: int, which: str = "all", search: str = ""
) -> dict[str, Any]:
    """A page of clients, see :func:`fedguard.ledger.pages.page`."""
    return page_values(page(ledger, offset, limit, which, search), offset)


def page_values(found: Page, offset: int) -> dict[str, Any]:
    """A page as JSON values."""
    return {
        "next_round": found.next_round,
        "clients": found.clients,
        "banned": found.banned,
        "found": found.found,
        "offset": offset,
        "entries": [_entry(entry, found.next_round) for entry in found.entries],
    }


def told(ledger: SQLiteLedger, number: int) -> dict[str, Any]:
    """One client's record, verdicts and actions, see :func:`fedguard.ledger.pages.story`."""
    return story_values(story(ledger, number))


def story_values(found: Story, verdicts: int = VERDICTS) -> dict[str, Any]:
    """A story as JSON values, with the latest verdicts and actions."""
    return {
        **_entry(found.entry, found.next_round),
        "judged": len(found.judgements),
        "verdicts": [_verdict(one) for one in found.judgements[-verdicts:]],
        "actions": [_action(one) for one in found.actions[-verdicts:]],
    }


def _entry(entry: Entry, now: int) -> dict[str, Any]:
    record: Record = entry.record
    return {
        "number": entry.number,
        "id": str(entry.client),  # text, since a browser rounds large integers
        "name": printable(entry.client),
        "rounds": record.rounds,
        "strikes": len(record.strikes),
        "score": score(record.last_score),
        "standing": standing(record, now),
        "banned": record.is_banned(now),
        "ever_banned": record.banned_since is not None,
        "why": printable(record.ban_reason, 600),
    }


def _verdict(one: Judgement) -> dict[str, Any]:
    said = {"round": one.round, "score": score(one.score), "suspect": one.suspect, "forgiven": one.forgiven}
    return {**said, "reason": printable(one.reason, 600)}


def _action(one: Action) -> dict[str, Any]:
    by = "the guard" if one.by == GUARD else printable(one.by)
    words = {"what": one.what, "since": one.since, "until": one.until}
    return {"time": printable(one.time), **words, "by": by, "why": printable(one.why, 600)}


def round_values(event: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a round of the event stream: counts, a few ids, drift and seconds, no verdicts."""
    drift, seconds = event["drift"], event["seconds"]
    return {
        "round": _number(event["round"]),
        "time": printable(event["time"]),
        "clients": _number(event["clients"]),
        "suspects": _names(event["suspects"]),
        "banned": len(event["banned"]),
        "new_bans": _names(event["new_bans"]),
        "note": printable(event["note"], 600),
        "norm": _number(drift.get("norm")),
        "cosine": _number(drift.get("cosine")),
        "seconds": {printable(part): _number(value) for part, value in list(seconds.items())[:20]},
    }


def _names(ids: list[Any]) -> dict[str, Any]:
    return {"count": len(ids), "names": [printable(one) for one in ids[:NAMED]]}


def _number(value: Any) -> float | str | None:
    """A number of a file that anybody may have written; text for what is no number."""
    if value is None or (isinstance(value, int | float) and math.isfinite(value)):
        return value
    return printable(value)


def score(value: float | None) -> float | str | None:
    """A score as JSON: null for none, "inf" for an unusable update."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else str(value)


def printable(value: object, width: int = _LONGEST_NAME) -> str:
    """Text without characters that nobody sees, or that turn the order of others, cut at ``width``.

    Example:
        >>> printable("ann" + chr(0x202E) + "nab" + chr(10))
        'ann\\\\u202enab\\\\n'
    """
    cut = str(value)[: width + 1]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return text if len(text) <= width else text[: width - 1] + "…"
