"""``fedguard show``: one method, part, rule, metric or suite: what it does, its paper, its parameters."""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Callable
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ..contracts.aliases import ALIASES, spelled
from ..contracts.registry import REGISTRIES
from ..contracts.rules import DESCRIBED
from ..core.docstrings import described, readable, sections
from ..core.errors import ConfigError, FedGuardError
from ..core.params import nearest
from ..evaluation.results.glossary import GLOSSARY
from ..evaluation.results.tables import COLUMNS
from ..evaluation.suites.load import load_suite
from ..evaluation.suites.source import read, shipped_suites
from ..evaluation.terminal import terminal
from ..testing.kinds import PARTS, find_kind, names_of
from .listing import parts_of

#: A rule's parameters without what it judges.
_GIVEN_TO_RULES = frozenset({"values"})
#: Kinds that are no code of their own.
OTHERS = ("rules", "metrics", "suites")
KINDS = (*REGISTRIES, *PARTS, *OTHERS)


def description(name: str, kind: str | None = None) -> dict[str, Any]:
    """What is known of something by name: plain data, as ``fedguard show --json`` prints it.

    Args:
        name: a registered name, ``module:name`` or ``library:NAME``.
        kind: in the singular or the plural, where a name is one of several kinds.

    Raises:
        ConfigError: nothing has this name, or things of several kinds have it.
    """
    plural = _kind(name, kind)
    if name in ALIASES.get(plural, {}):
        real, settings = ALIASES[plural][name]
        told = description(real, plural)
        return {**told, "name": name, "summary": f"{told['summary']}; stands for {spelled(real, settings)}"}
    if plural == "metrics":
        return _metric(name)
    if plural == "suites":
        return _suite(name)
    if plural == "rules":
        return {"kind": "rule", "name": name, **_code(DESCRIBED[name], _GIVEN_TO_RULES)}
    if plural in PARTS:
        parts = parts_of(plural)
        return {"kind": PARTS[plural], "name": name, **_code(parts.get(name), parts.offers)}
    return _method(plural, name)


def _kind(name: str, kind: str | None) -> str:
    wanted = None if kind is None else "policies" if kind == "policy" else kind.removesuffix("s") + "s"
    if wanted is not None and wanted not in KINDS:
        raise ConfigError(f"unknown kind {kind!r}{nearest(wanted, KINDS)} (known: {', '.join(KINDS)})")
    if ":" in name:
        return find_kind(name, wanted)
    known = {plural: _names(plural) for plural in (KINDS if wanted is None else (wanted,))}
    found = [plural for plural, names in known.items() if name in names]
    found = found or [plural for plural in known if name in ALIASES.get(plural, {})]
    if not found:
        words = [word for names in known.values() for word in names]
        of = f" among the {wanted}" if wanted else ""
        raise ConfigError(f"nothing is called {name!r}{of}{nearest(name, words)}")
    if len(found) > 1:
        raise ConfigError(f"{name!r} is in {' and '.join(found)}; say which with --kind")
    return found[0]


def _names(plural: str) -> list[str]:
    if plural == "rules":
        return list(DESCRIBED)
    if plural == "metrics":
        return list(COLUMNS)
    return list(shipped_suites()) if plural == "suites" else names_of(plural)


def _code(thing: Callable[..., Any], omit: frozenset[str] = frozenset()) -> dict[str, Any]:
    """What a class or a function says of itself."""
    parts = {title: readable(text) for title, text in sections(thing).items()}
    summary, _, more = parts[""].partition("\n")
    source = " ".join(parts.get("Source", "").split())
    return {
        "summary": summary,
        "description": _flowing(more),
        "paper": source,
        "parameters": _parameters(thing, omit),
        "filled in": [name for name in inspect.signature(thing).parameters if name in omit],
    }


def _flowing(text: str) -> str:
    """Paragraphs as one line each; blocks with indented lines stay as they are."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(text).strip())
    return "\n\n".join(b if re.search(r"^\s", b, re.MULTILINE) else " ".join(b.split()) for b in blocks)


def _parameters(thing: Callable[..., Any], omit: frozenset[str]) -> list[dict[str, Any]]:
    texts, found = described(thing), []
    hints = _hints(thing)
    for p in inspect.signature(thing).parameters.values():
        if p.name in omit or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            continue
        required = p.default is p.empty
        entry = {
            "name": p.name,
            "type": _type(hints.get(p.name, p.annotation)),
            "required": required,
            "default": None if required else _plain(p.default),
            "description": readable(texts.get(p.name, "")),
        }
        found.append(entry)
    return found


def _hints(thing: Callable[..., Any]) -> dict[str, Any]:
    """The types of the parameters; empty if they cannot be resolved."""
    try:
        return typing.get_type_hints(thing.__init__ if inspect.isclass(thing) else thing)
    except Exception:  # evaluating a stranger's annotations may raise anything
        return {}


def _type(hint: Any) -> str:
    """A type in short: "int | None", "'one' | 'other'"."""
    if hint is inspect.Parameter.empty:
        return ""
    if typing.get_origin(hint) is typing.Literal:
        return " | ".join(map(repr, typing.get_args(hint)))
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " | ".join(map(_type, typing.get_args(hint)))
    if hint is type(None):
        return "None"
    return (
        hint if isinstance(hint, str) else re.sub(r"\b[a-z_]\w*\.(?=\w)", "", inspect.formatannotation(hint))
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str | list | dict | None) else str(value)


def _method(plural: str, name: str) -> dict[str, Any]:
    cls = REGISTRIES[plural].get(name)
    told = _code(cls)
    found = {"kind": REGISTRIES[plural].kind, "name": cls.card.name, "summary": cls.card.summary}
    found["description"] = "\n\n".join(filter(None, (told["summary"], told["description"])))
    found |= {"paper": cls.card.paper, "source": told["paper"], "parameters": told["parameters"]}
    if plural == "attacks":
        found |= {"acts on": cls.kind, "goal": cls.goal, "knowledge": sorted(cls.knowledge)}
    else:
        found["needs"] = sorted(getattr(cls, "needs", ()))
    if plural in ("detectors", "aggregators", "stages"):
        found["minimum clients"] = _minimum(cls)
    return found


def _minimum(cls: Callable[..., Any]) -> int | None:
    """The fewest clients with the default parameters; None if it has none for some parameter."""
    try:
        least: int = cls().min_clients()
    except (FedGuardError, TypeError):
        return None
    return least


def _metric(name: str) -> dict[str, Any]:
    return {"kind": "metric", "name": name, "summary": GLOSSARY[name], "heading": COLUMNS[name].title}


def _suite(name: str) -> dict[str, Any]:
    plan, _ = load_suite(name)
    found = {"kind": "suite", "name": name, "summary": str((read(name).data or {}).get("summary", ""))}
    found |= {part: getattr(plan, part).name for part in ("data", "partition", "model")}
    found |= {key: getattr(plan, key) for key in ("clients", "malicious", "rounds", "seeds")}
    return found | {"attacks": list(plan.attacks), "defenses": list(plan.defenses), "runs": len(plan.cells())}


#: Entries that the text shows in places of their own.
_SHOWN = ("kind", "name", "summary", "description", "parameters")


def show(found: dict[str, Any]) -> None:
    """Print a description."""
    console = terminal(piped_width=100)
    console.print(Text.assemble((found["name"], "bold"), f"  ({found['kind']})"))
    console.print(found["summary"])
    if found.get("description"):
        console.print(f"\n{found['description']}")
    facts = {key: value for key, value in found.items() if key not in _SHOWN and value not in ("", [], None)}
    if facts:
        console.print()
    for key, value in facts.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        console.print(Text.assemble((f"{key}: ", "bold"), text))
    if "parameters" not in found:
        return
    if not found["parameters"]:
        console.print("\nIt has no parameters.")
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1))
    for title in ("parameter", "type", "default", "what it is"):
        table.add_column(title, style="bold" if title == "parameter" else None, no_wrap=title == "parameter")
    for entry in found["parameters"]:
        default = "required" if entry["required"] else repr(entry["default"])
        table.add_row(*map(Text, (entry["name"], entry["type"], default, entry["description"])))
    console.print(table)
