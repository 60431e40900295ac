"""The page: one HTML document whose policy allows its own script and style and nothing else."""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..core.errors import ConfigError, DataError
from ..core.files import is_file, not_written, write_file
from ..ledger.pages import MAX_PAGE, story
from ..ledger.sqlite import SQLiteLedger
from ..observers.tail import Tail
from .contents import overview, round_values, story_values

SELF, NONE = "'self'", "'none'"
#: Verdicts per client in a file.
FILE_VERDICTS = 50


@functools.cache
def part(name: str) -> str:
    """A file of the folder ``templates``."""
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def policy(live: bool) -> str:
    """The Content-Security-Policy: the page's own script and style by their hashes, requests to itself."""
    hashes = {name: _hash(part(f"page.{name}")) for name in ("js", "css")}
    rules = [
        f"default-src {NONE}",
        f"script-src 'sha256-{hashes['js']}'",
        f"style-src 'sha256-{hashes['css']}'",
        f"base-uri {NONE}",
        f"form-action {SELF if live else NONE}",
    ]
    return "; ".join([*rules, f"connect-src {SELF}", f"frame-ancestors {NONE}"] if live else rules)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def room(data: dict[str, Any], live: bool) -> str:
    """The page with its first data.

    Args:
        data: JSON values: ``title``; live also ``csrf`` and ``writable``; in a file ``page``, ``stories`` and
            ``rounds``.
        live: whether a server answers; it sends the policy itself.
    """
    meta = f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy(False))}">'
    contents = {
        "META": "" if live else meta,
        "TITLE": html.escape(str(data["title"])),
        "CSS": part("page.css"),
        "JS": part("page.js"),
        "DATA": embedded({**data, "live": live}),
    }
    return _filled("page.html", contents)


def _filled(name: str, contents: dict[str, str]) -> str:
    """A template with its marks replaced, in one pass: a content may hold what looks like a mark."""
    return re.sub("@([A-Z]+)@", lambda mark: contents[mark[1]], part(name))


def embedded(data: dict[str, Any]) -> str:
    """JSON inside a script element: ASCII, and no character that could end the element."""
    text = json.dumps(data, allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def login(message: str = "") -> str:
    """The page that asks for the token."""
    return _filled("login.html", {"CSS": part("page.css"), "MESSAGE": html.escape(message)})


def write_ledger_report(ledger_path: Path, out: Path | None = None, events: Path | None = None) -> Path:
    """Write the control room as one file that loads nothing; beside the ledger if no path is given.

    It holds at most :data:`fedguard.ledger.pages.MAX_PAGE` clients, banned and most suspicious first, with
    their latest verdicts.

    Raises:
        LedgerError: the ledger cannot be read.
        DataError: the event stream cannot be read.
        ConfigError: the file cannot be written.
    """
    ledger = SQLiteLedger(ledger_path, read_only=True)
    path = ledger_path.with_suffix(".html") if out is None else out
    with ledger.reading():
        first = overview(ledger, 0, MAX_PAGE)
        stories = {
            str(entry["number"]): story_values(story(ledger, entry["number"]), FILE_VERDICTS)
            for entry in first["entries"]
        }
    data = {"title": ledger_path.name, "page": first, "stories": stories, "rounds": rounds_of(events)}
    try:
        write_file(path, room(data, live=False))
    except OSError as error:
        raise ConfigError(not_written(path, error)) from None
    return path


def rounds_of(events: Path | None) -> list[dict[str, Any]]:
    """The latest rounds of an event stream; none without one.

    Raises:
        DataError: it cannot be read, or there is no such file.
    """
    if events is None:
        return []
    tail = Tail(events, round_values)
    if not is_file(events):
        raise DataError(f"{events}: there is no such file; a guard with an EventLog writes it")
    tail.read()
    return list(tail.rounds)
