"""Checks of a store: results folders are shared, and SQLite accepts any value in any column."""

from __future__ import annotations

import json
import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from ...core.errors import ConfigError
from ...core.sqlite_file import connect, cut_short, damage, foreign_part
from ...core.yaml_values import parse
from .store_tables import SCHEMA_VERSION, tables

#: The most bytes of a value: settings, reasons, errors with tracebacks.
LONGEST = 64 * 2**20
#: Columns by type.
_TEXTS = "key point mode attack defense status error settings id reason note info part"
_WHOLE = "run round client seed clients malicious assumed_malicious rounds"
_FLAGS = "attacking participated suspect banned"
#: Columns that must not be NULL, by table; a column has the same type in every table.
_FILLED = {
    "runs": "run key point mode attack defense seed status error clients assumed_malicious settings",
    "clients": "run round client id attacking participated suspect weight banned reason",
    "rounds": "run round note info",
    "timings": "run part seconds",
}
_ALL = {
    **dict.fromkeys([*_TEXTS.split(), "basis"], "typeof({0}) = 'text'"),
    **dict.fromkeys(_FLAGS.split(), "typeof({0}) = 'integer' AND {0} IN (0, 1)"),
    **dict.fromkeys(("score", "loss", "leak_psnr"), "typeof({0}) IN ('real', 'integer')"),  # Inf is possible
    **dict.fromkeys(_WHOLE.split(), "typeof({0}) = 'integer'"),
    "mode": "{0} IN ('closed', 'shadow', 'recorded')",
    "status": "{0} IN ('done', 'failed')",
    "basis": "{0} IN ('', 'labels', 'rounds')",
}


def is_empty(path: Path) -> bool:
    """Whether there is no store yet, or one that was interrupted before it had tables."""
    if not path.exists():
        return True
    with closing(connect(path, "rw", LONGEST)) as db:
        return not db.execute("SELECT 1 FROM sqlite_master").fetchone()


def wrong_file(path: Path, db: sqlite3.Connection) -> str:
    """Why a file is not a store of this FedGuard or an older one; empty if it is one.

    Args:
        path: the file.
        db: the open file.

    Raises:
        sqlite3.Error: it cannot be read.
    """
    if cut_short(path):
        return "is cut short; run the suite again, or use a copy"
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        return (
            f"has version {version} of the tables, this FedGuard reads {SCHEMA_VERSION}; use a newer FedGuard"
        )
    foreign = foreign_part(db, tables(version)) if version > 0 else "no version of its tables"
    if foreign:
        return f"is not a results file of `fedguard evaluate`: it has {foreign}; use another copy of it"
    damaged = damage(db)
    return f"is damaged ({damaged}); run the suite again, or use a copy" if damaged else ""


def wrong_column(db: sqlite3.Connection, table: str) -> str:
    """The first column of a table with a value of the wrong type; empty if there is none.

    Raises:
        sqlite3.Error: the file cannot be read.
    """
    names = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
    cases = [f"WHEN NOT ({_rule(table, name)}) THEN '{name}'" for name in names]
    query = (
        f"SELECT * FROM (SELECT CASE {' '.join(cases)} END AS wrong FROM {table}) WHERE wrong NOTNULL LIMIT 1"  # noqa: S608 - our own names
    )
    found = db.execute(query).fetchone()
    return str(found[0]) if found else ""


def _rule(table: str, name: str) -> str:
    """The SQL condition on a column's values; a metric is a number or NULL."""
    rule = _ALL.get(name, "typeof({0}) IN ('real', 'integer') AND abs({0}) < 1e300").format(name)
    return f"{name} NOTNULL AND {rule}" if name in _FILLED[table].split() else f"{name} ISNULL OR ({rule})"


class _Model(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Named(_Model):
    name: str


class _Policy(_Named):
    rule: Any = None

    @model_validator(mode="after")
    def _threshold(self) -> _Policy:
        if isinstance(self.rule, dict) and self.rule.get("name") == "threshold":
            float(self.rule.get("value", "missing"))  # the report draws it
        return self


class _Defense(_Model):
    detector: list[_Named]
    stages: list[_Named]
    aggregator: _Named
    policy: _Policy | None
    flcert: dict[str, Any] | None


class _Settings(_Model):
    """The settings that readers of ``runs.settings`` rely on; others may come from another version."""

    partition: _Named
    point: dict[str, Any] = {}
    attack: _Named
    defense: _Defense


def wrong_text(point: str, settings: str) -> str:
    """What is wrong with a run's JSON columns; empty if they can be read."""
    try:
        if not isinstance(json.loads(point), dict):
            return "its point is not a JSON object"
        _Settings.model_validate(json.loads(settings))
    except ValidationError as error:
        return f"settings.{'.'.join(map(str, error.errors()[0]['loc']))} is not valid"
    except (ValueError, TypeError, RecursionError):
        return "its point or settings are not valid JSON"
    return ""


#: The names of objects that were given from Python, in the text of a suite.
_GIVEN = re.compile(r"(?<=\bgiven:)\w+@[0-9a-f]+")


def other_suite(there: str, fresh: str) -> str:
    """How the text of a suite differs from another one, as the end of a sentence about results."""
    pairs = zip(_GIVEN.findall(there), _GIVEN.findall(fresh), strict=False)
    changed = dict.fromkeys(new.partition("@")[0] for old, new in pairs if old != new)
    if changed and _GIVEN.sub("", there) == _GIVEN.sub("", fresh):
        return f"of another version of {', '.join(changed)} (its code or state has changed)"
    return f"of another suite{_other_settings(there, fresh)}"


def _other_settings(there: str, fresh: str) -> str:
    try:
        (old, _), (new, _) = parse(there, "suite.yaml"), parse(fresh, "suite")
    except ConfigError:
        return ""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return ""
    keys = [str(key) for key in new if old.get(key) != new[key]]
    return f" (other {', '.join(keys[:5])})" if keys else ""
