"""Reference pages of all registered methods, written from the registry when the site is built."""

from __future__ import annotations

import inspect
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

import fedguard
from fedguard.contracts.aliases import spelled

_LINKS = Path(__file__).parents[1] / "papers.yaml"
PAPERS: dict[str, str] = yaml.safe_load(_LINKS.read_text(encoding="utf-8"))

#: kind → its function in the public API (a registry's bound method), and what its page says first.
KINDS = {
    "detectors": (fedguard.make_detector, "Each gives one number per client; higher is more suspicious."),
    "attacks": (fedguard.make_attack, "Each acts for all malicious clients of a simulated federation."),
    "policies": (fedguard.make_policy, "Each turns scores and the ledger into weights, exclusions and bans."),
    "aggregators": (fedguard.make_aggregator, "Each turns the admitted updates into one."),
    "stages": (fedguard.make_stage, "Each changes what the aggregator gets, or what it gave."),
}


def registry(kind: str) -> Any:
    """The registry behind ``make_<kind>``."""
    return KINDS[kind][0].__self__


def links(paper: str) -> list[tuple[str, str | None]]:
    """The papers that a card names, each with its address; None where there is no paper."""
    parts = paper.split("; ")
    return [(part, next((url for key, url in PAPERS.items() if key in part), None)) for part in parts]


def pages() -> dict[str, str]:
    """File name → reStructuredText: one page per method, and an index per kind."""
    result = {}
    for kind, (_, lead) in KINDS.items():
        methods = registry(kind)
        classes = {name: methods.get(name) for name in methods.names()}
        result[f"{kind}/index.rst"] = _index(kind, methods.kind, lead, classes)
        for name, cls in classes.items():
            result[f"{kind}/{name}.rst"] = _method(kind, methods.kind, name, cls)
    return result


def _index(kind: str, word: str, lead: str, classes: dict[str, Any]) -> str:
    extra = {"detectors": "Needs", "attacks": "Kind and knowledge"}.get(kind, "")
    head = ["Name", "What it does", *([extra] if extra else []), "Paper"]
    rows = [head]
    for name, cls in classes.items():
        row = [f":doc:`{name} <{name}>`", _text(cls.card.summary), *([_extra(kind, cls)] if extra else [])]
        rows.append([*row, _paper(cls.card.paper)])
    lines = [_title(kind.capitalize(), "="), lead, ""]
    lines += [f"``fedguard.make_{word}(name, **parameters)`` builds one; a suite names it in YAML;", ""]
    lines[-2] += f" ``fedguard list {kind}`` shows this table.\n"
    lines += [".. list-table::", "   :header-rows: 1", "   :class: methods", ""]
    for row in rows:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    lines += ["", *_aliases(kind), ".. toctree::", "   :hidden:", "", *[f"   {name}" for name in classes], ""]
    return "\n".join(lines)


def _aliases(kind: str) -> list[str]:
    """The field's other names for methods of this kind, as a table."""
    rows = [(f"``{alias}``", _text(spelled(*real))) for alias, real in registry(kind).aliases.items()]
    if not rows:
        return []
    lines = ["Other names that the field uses:", "", ".. list-table::", "   :header-rows: 1", ""]
    for row in [("Alias", "Stands for"), *rows]:
        lines += [f"   {'* -' if i == 0 else '  -'} {cell}" for i, cell in enumerate(row)]
    return [*lines, ""]


def _method(kind: str, word: str, name: str, cls: Any) -> str:
    facts = [("Paper", _paper(cls.card.paper))]
    if kind in ("detectors", "attacks"):
        facts.append(("Needs" if kind == "detectors" else "Kind and knowledge", _extra(kind, cls)))
    required = [p.name for p in inspect.signature(cls).parameters.values() if p.default is p.empty]
    call = ", ".join([f'"{name}"', *(f"{p}=…" for p in required)])
    facts.append(("Build it", f"``fedguard.make_{word}({call})``"))
    lines = [_title(name, "="), _text(cls.card.summary[0].upper() + cls.card.summary[1:]) + ".", ""]
    lines += [f":{title}: {text}" for title, text in facts]
    lines += ["", f".. autoclass:: {cls.__module__}.{cls.__qualname__}", "   :no-index-entry:", ""]
    lines.append(_defaults(cls))
    return "\n".join(lines)


def _defaults(cls: Any, omit: Collection[str] = ()) -> str:
    """The parameters with type and default, as YAML and Python take them; not those that users do not set."""
    parameters = [p for name, p in inspect.signature(cls).parameters.items() if name not in omit]
    if not parameters:
        return "It has no parameters.\n"
    lines = [".. list-table:: Parameters, as Python and YAML take them", "   :header-rows: 1", ""]
    lines += ["   * - Name", "     - Type", "     - Default"]
    for p in parameters:
        if p.kind is p.VAR_KEYWORD:
            lines += [f"   * - ``**{p.name}``", "     - what the library takes", "     - none"]
            continue
        default = "required" if p.default is p.empty else f"``{p.default!r}``"
        kind = p.annotation if isinstance(p.annotation, str) else inspect.formatannotation(p.annotation)
        lines += [f"   * - ``{p.name}``", f"     - ``{kind}``", f"     - {default}"]
    return "\n".join([*lines, ""])


def _extra(kind: str, cls: Any) -> str:
    words = sorted(cls.needs) if kind == "detectors" else [cls.kind, cls.goal, *sorted(cls.knowledge)]
    return ", ".join(words) or "the updates only"


def _paper(paper: str) -> str:
    named = [f"`{_text(text)} <{url}>`__" if url else _text(text) for text, url in links(paper)]
    return "; ".join(named)


def _title(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def _text(text: str) -> str:
    """Plain words in reStructuredText: nothing in them is markup."""
    for character in "\\*`|_<>":
        text = text.replace(character, "\\" + character)
    return text
