"""``fedguard list``: tables of methods, data sets, suites and metrics."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from rich.table import Table

from ..contracts.aliases import ALIASES, spelled
from ..contracts.registry import REGISTRIES
from ..core.docstrings import readable, sections
from ..core.errors import ConfigError, FedGuardError, RegistryError
from ..core.params import nearest
from ..evaluation.suites.source import read, shipped_suites
from .completion import KINDS

if TYPE_CHECKING:
    from ..simulation.parts import Parts


#: The titles of a table and its rows.
Rows: TypeAlias = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]


#: What a suite can name besides what is listed.
ALSO = {
    "models": "also torchvision:NAME, timm:NAME, hf:NAME, and your own module:NAME",
    "datasets": "also torchvision:NAME, huggingface:OWNER/NAME, openml:NUMBER, and your own module:NAME",
    "partitions": "also flwr:NAME, and your own module:NAME",
}


def listing(kind: str) -> Table:
    """Return the table of one kind.

    Raises:
        ConfigError: the kind is unknown.
    """
    table = _table(*listed(kind))
    table.caption = ALSO.get(kind)
    return table


def as_records(kind: str) -> list[dict[str, str]]:
    """The table of one kind as plain data: one mapping from titles per row."""
    titles, rows = listed(kind)
    return [dict(zip(titles, row, strict=False)) for row in rows]


def listed(kind: str) -> Rows:
    """The titles and rows of one kind.

    Raises:
        ConfigError: the kind is unknown.
    """
    if kind in REGISTRIES:
        return _methods(kind)
    if kind in ("models", "datasets", "partitions"):
        parts = parts_of(kind)
        return ("name", "what it is"), [(name, _summary(parts, name)) for name in parts.names()]
    if kind == "aliases":
        return _alias_rows(tuple(ALIASES))
    if kind == "rules":
        from ..contracts.rules import DESCRIBED

        rules = [(name, readable(sections(rule)[""].partition("\n")[0])) for name, rule in DESCRIBED.items()]
        return ("name", "what it suspects"), rules
    if kind == "suites":
        suites = [(name, str((read(name).data or {}).get("summary", ""))) for name in shipped_suites()]
        return ("name", "what it runs"), suites
    if kind == "metrics":
        from ..evaluation.results.glossary import GLOSSARY
        from ..evaluation.results.tables import COLUMNS

        rows = [(name, column.title, GLOSSARY[name]) for name, column in COLUMNS.items()]
        return ("name", "heading", "what it is"), rows
    raise ConfigError(f"cannot list {kind!r}{nearest(kind, KINDS)}; choose from {', '.join(KINDS)}")


def aliases(kinds: Sequence[str]) -> Table:
    """Return the table of the names that stand for other methods.

    Raises:
        ConfigError: one of the kinds has no methods.
    """
    for kind in kinds:
        if kind not in ALIASES:
            raise ConfigError(f"{kind} have no aliases; choose from {', '.join(ALIASES)}")
    return _table(*_alias_rows(kinds))


def _alias_rows(kinds: Sequence[str]) -> Rows:
    rows = [
        (alias, REGISTRIES[kind].kind, spelled(*meaning))
        for kind in kinds
        for alias, meaning in ALIASES[kind].items()
    ]
    return ("name", "kind", "stands for"), rows


def parts_of(kind: str) -> Parts:
    """The parts of a kind: models, datasets or partitions."""
    module = importlib.import_module(f"fedguard.simulation.{kind}")
    found: Parts = getattr(module, kind)
    return found


def _summary(parts: Parts, name: str) -> str:
    try:
        return readable(parts.summary(name))
    except FedGuardError as error:  # one broken plug-in must not hide the others
        return f"cannot be used: {error}"


def _methods(kind: str) -> Rows:
    registry = REGISTRIES[kind]
    extra = {"detectors": "needs", "attacks": "kind, goal, knowledge"}.get(kind)
    rows: list[tuple[str, ...]] = []
    for name in registry.names():
        try:
            cls = registry.get(name)
        except RegistryError as error:  # one broken plug-in must not hide the others
            rows.append((name, f"cannot be used: {error}"))
            continue
        row = [name, cls.card.summary, cls.card.paper]
        if extra:
            row.append(_needs(cls) if kind == "detectors" else _knows(cls))
        rows.append(tuple(row))
    return ("name", "what it does", "paper", *([extra] if extra else [])), rows


def _needs(cls: Any) -> str:
    return ", ".join(sorted(cls.needs)) or "–"


def _knows(cls: Any) -> str:
    return ", ".join([cls.kind, cls.goal, *sorted(cls.knowledge)])


def _table(titles: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(show_lines=False)
    for i, title in enumerate(titles):
        table.add_column(title, style="bold" if i == 0 else None, no_wrap=i == 0)
    for row in rows:
        table.add_row(*row)
    return table
