"""The keys of a suite, written from the JSON schema that ``fedguard schema`` prints."""

from __future__ import annotations

import contextlib
import io
import json
import re
from typing import Any

from .methods import _text, _title
from .public import command

#: Definition of the schema → where such keys stand in a suite.
PLACES = {
    "TrainingSettings": "training",
    "ServerSettings": "server",
    "Defense": "defenses.<label>",
    "Schedule": "attacks.<label>.schedule",
    "Victims": "attacks.<label>.victims",
}


def schema() -> dict[str, Any]:
    """What ``fedguard schema`` prints."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        command().main(["schema"], standalone_mode=False)
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def page() -> str:
    """All keys with type, default and meaning."""
    whole = schema()
    known = [name for name in whole["$defs"] if name in PLACES]
    lines = [_title("Keys of a suite", "=")]
    lines += ["A suite is a YAML file. Editors complete and check it with what ``fedguard schema`` prints;"]
    lines += [
        "this page is written from the same schema. An unknown key is an error that names file and line.",
        "",
    ]
    lines += _table("Top level", whole)
    for name in known:
        lines += _table(f"{PLACES[name]}", whole["$defs"][name])
    return "\n".join(lines)


def _table(title: str, part: dict[str, Any]) -> list[str]:
    lines = [_title(title, "-"), ".. list-table::", "   :header-rows: 1", "   :class: keys", ""]
    lines += ["   * - Key", "     - Type", "     - Default", "     - Meaning"]
    for key, value in part["properties"].items():
        default = value.get("default", {})  # what a mapping holds has a table of its own
        shown = "" if isinstance(default, dict) else f"``{json.dumps(default, ensure_ascii=False)}``"
        meaning = value.get("description", "")
        lines += [
            f"   * - ``{key}``",
            f"     - {_kind(value)}",
            f"     - {shown}",
            f"     - {_quoted(meaning)}",
        ]
    return [*lines, ""]


def _kind(value: dict[str, Any]) -> str:
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        return name if name.islower() else "mapping"
    if "enum" in value:
        return " or ".join(f"``{v}``" for v in value["enum"])
    if "anyOf" in value:
        kinds = dict.fromkeys(_kind(v) for v in value["anyOf"])
        return " or ".join(kinds)
    kind = value.get("type", "anything")
    return f"list of {_kind(value['items'])}" if kind == "array" and value.get("items") else str(kind)


def _quoted(text: str) -> str:
    text = re.sub(r":\w+:`~?([^`]+)`", r"``\1``", text)  # roles, as docstrings have them
    parts = re.split(r"(``[^`]+``)", text)
    return "".join(part if part.startswith("``") else _text(part) for part in parts)
