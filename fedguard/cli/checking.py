"""``fedguard check``: check one method, or all registered ones, and print tables."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from ..core.errors import ConfigError, DataError, FedGuardError
from ..core.named_code import is_code
from ..evaluation.terminal import terminal
from ..testing.aggregators import check_aggregator
from ..testing.attacks import check_attack
from ..testing.core import Report
from ..testing.detectors import check_detector
from ..testing.kinds import KINDS, PARTS, find_kind, names_of, part_checker, singular
from ..testing.policies import check_policy
from ..testing.stages import check_stage
from .listing import parts_of
from .scaffold import shadowed

CHECKERS: dict[str, Callable[..., Report]] = {
    "detectors": check_detector,
    "attacks": check_attack,
    "aggregators": check_aggregator,
    "stages": check_stage,
    "policies": check_policy,
}
STYLES = {"passed": "green", "failed": "bold red", "exempt": "yellow", "info": "dim"}


def checker(plural: str) -> Callable[..., Report]:
    """The function that checks a method or part of a kind."""
    return part_checker(plural) if plural in PARTS else CHECKERS[plural]


def check_one(method: str, kind: str | None, params: dict[str, Any] | None) -> bool:
    """Check a method and print a table; returns whether everything passed.

    Raises:
        ConfigError: a part needs a parameter that is not given.
    """
    plural = find_kind(method, kind)
    needed = _needed(plural, method, params or {}) if plural in PARTS else ""
    if needed:
        raise ConfigError(f"{singular(plural)} {method}: {needed}")
    more = {"cost": True} if plural == "detectors" else {}
    report = checker(plural)(method, params or None, **more)
    table = Table(title=f"{singular(plural)} {report.method}", show_lines=False)
    for column in ("check", "result", "message and advice"):
        table.add_column(column)
    for result in report.results:
        text = result.message
        if result.status == "failed":
            text = f"{result.message}\n{result.advice}"
        table.add_row(result.check, Text(result.status, style=STYLES[result.status]), text)
    terminal().print(table)
    taken = {report.method, method.rpartition(":")[2]} & {*names_of(plural)} if is_code(method) else set()
    for name in sorted(taken):
        print(f"warning: {shadowed(singular(plural), name, method)}", file=sys.stderr)
    return report.ok


def check_all() -> bool:
    """Check every registered method and part, one line for each; returns whether everything passed.

    Leaves out, and names, what needs parameters, files or an extra that are not there.
    """
    console, ok = terminal(), True
    for plural in KINDS:
        for name in names_of(plural):
            reason = _left_out(plural, name) if plural in PARTS else ""
            if reason:
                console.print(Text.assemble(f"{plural:12} {name:24} ", (f"not checked: {reason}", "yellow")))
                continue
            report = checker(plural)(name)
            ok &= report.ok
            exempt = sum(r.status == "exempt" for r in report.results)
            text = "passed" if report.ok else "; ".join(f"{r.check}: {r.message}" for r in report.failures)
            more = f" ({exempt} exempt)" if exempt else ""
            style = "green" if report.ok else "bold red"
            console.print(Text.assemble(f"{plural:12} {name:24} ", (text, style), more))
    return ok


def _left_out(plural: str, name: str) -> str:
    """Why a registered part cannot be checked here; empty if it can."""
    try:
        part_checker(plural)
        needed = _needed(plural, name, {})
    except FedGuardError as error:
        return str(error)
    if needed:
        return needed
    try:
        if plural == "datasets":
            parts_of(plural).make(name, {"data_root": None}, {})
    except DataError as error:
        return str(error)
    return ""


def _needed(plural: str, name: str, params: dict[str, Any]) -> str:
    """Which parameters of a part are missing, and how to give them; empty if none is."""
    parts = parts_of(plural)
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [
        p.name
        for p in inspect.signature(parts.get(name)).parameters.values()
        if p.default is p.empty and p.kind not in optional and p.name not in (*parts.offers, *params)
    ]
    return f"it needs {', '.join(needed)}: fedguard check {name} {needed[0]}=…" if needed else ""
