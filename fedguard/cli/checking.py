"""``fedguard check``: check one method, or all registered ones, and print tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table
from rich.text import Text

from ..contracts.registry import REGISTRIES
from ..core.errors import ConfigError, RegistryError
from ..core.params import nearest
from ..evaluation.terminal import terminal
from ..testing.aggregators import check_aggregator
from ..testing.attacks import check_attack
from ..testing.core import Report
from ..testing.detectors import check_detector
from ..testing.policies import check_policy
from ..testing.stages import check_stage

CHECKERS: dict[str, Callable[..., Report]] = {
    "detectors": check_detector,
    "attacks": check_attack,
    "aggregators": check_aggregator,
    "stages": check_stage,
    "policies": check_policy,
}
STYLES = {"passed": "green", "failed": "bold red", "exempt": "yellow", "info": "dim"}


def find_kind(method: str, kind: str | None) -> str:
    """Return the registry that a method belongs to.

    Raises:
        ConfigError: no method has this name, or several kinds have one.
        RegistryError: the module cannot be loaded, or the class breaks its contract.
    """
    if kind is not None:
        plural = "policies" if kind in ("policy", "policies") else kind.removesuffix("s") + "s"
        if plural not in REGISTRIES:
            raise ConfigError(f"unknown kind {kind!r}; use detector, attack, aggregator, stage or policy")
        return plural
    if ":" in method:
        return _kind_of_class(method)
    found = [plural for plural, registry in REGISTRIES.items() if method in registry.names()]
    if not found:
        known = [name for registry in REGISTRIES.values() for name in registry.names()]
        raise ConfigError(f"there is no method {method!r}{nearest(method, known)}")
    if len(found) > 1:
        raise ConfigError(f"{method!r} is in {' and '.join(found)}; choose one with --kind")
    return found[0]


def _kind_of_class(method: str) -> str:
    problems = []
    for plural, registry in REGISTRIES.items():
        try:
            registry.get(method)
        except RegistryError as error:
            problems.append(str(error))
        else:
            return plural
    inherit = [p for p in problems if "does not inherit" not in p]
    raise RegistryError((inherit or problems)[0])


def check_one(method: str, kind: str | None, params: dict[str, Any] | None) -> bool:
    """Check a method and print a table; returns whether everything passed."""
    plural = find_kind(method, kind)
    more = {"cost": True} if plural == "detectors" else {}
    report = CHECKERS[plural](method, params or None, **more)
    table = Table(title=f"{plural.removesuffix('s')} {report.method}", show_lines=False)
    for column in ("check", "result", "message and advice"):
        table.add_column(column)
    for result in report.results:
        text = result.message
        if result.status == "failed":
            text = f"{result.message}\n{result.advice}"
        table.add_row(result.check, Text(result.status, style=STYLES[result.status]), text)
    terminal().print(table)
    return report.ok


def check_all() -> bool:
    """Check every registered method and print one line for each; returns whether everything passed."""
    console, ok = terminal(), True
    for plural, checker in CHECKERS.items():
        for name in REGISTRIES[plural].names():
            report = checker(name)
            ok &= report.ok
            exempt = sum(r.status == "exempt" for r in report.results)
            text = "passed" if report.ok else "; ".join(f"{r.check}: {r.message}" for r in report.failures)
            more = f" ({exempt} exempt)" if exempt else ""
            style = "green" if report.ok else "bold red"
            console.print(Text.assemble(f"{plural:12} {name:24} ", (text, style), more))
    return ok
