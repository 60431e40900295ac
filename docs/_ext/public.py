"""Reference pages of the public API and of the command line, written when the site is built."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import typing
from importlib.metadata import entry_points
from typing import Any

import click
import typer.main

import fedguard

from .methods import _text, _title

#: Page → its title, its lead, and what it documents; names of ``fedguard`` unless a module is given.
GROUPS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "evaluate": (
        "Evaluating from Python",
        "Attacks × defenses × seeds on your own data, model and methods, and what comes out.",
        ("evaluate", "load", "Results", "tune"),
    ),
    "guard": (
        "The guard",
        "What an integration needs: rounds in, outcomes out.",
        (
            "Guard",
            "load_guard",
            "Round",
            "Outcome",
            "Updates",
            "ShardedUpdates",
            "StreamedUpdates",
            "Server",
            "Labeled",
            "LabeledData",
            "ServerOptimizer",
        ),
    ),
    "ledger": (
        "Ledgers and observers",
        "State that persists between rounds, and observers of a guard.",
        ("Ledger", "SQLiteLedger", "Observer", "EventLog"),
    ),
    "making": (
        "Methods by name",
        "Parameters are checked against the method's signature.",
        ("make_detector", "make_attack", "make_policy", "make_aggregator", "make_stage"),
    ),
}
#: What the functions of a page return or take beside the public names.
MORE = {
    "evaluate": (
        "fedguard.evaluation.api.table.Table",
        "fedguard.evaluation.api.results.Failure",
        "fedguard.evaluation.results.compare.Comparison",
        "fedguard.evaluation.results.compare.Change",
        "fedguard.evaluation.running.executors.Executor",
    ),
    "ledger": (
        "fedguard.observers.alerts.Alerts",
        "fedguard.observers.alert.Alert",
        "fedguard.observers.receivers.Webhook",
        "fedguard.observers.receivers.Email",
        "fedguard.observers.receivers.Command",
    ),
}
MODULES = ("fedguard.recording", "fedguard.testing", "fedguard.flower", "fedguard.evaluation.tuning")


def pages() -> dict[str, str]:
    """File name → reStructuredText."""
    named = {name for _, _, names in GROUPS.values() for name in names}
    public = [
        n for n in fedguard.__all__ if not n.startswith("__") and not inspect.ismodule(getattr(fedguard, n))
    ]
    rest = tuple(n for n in public if n not in named and n != "FedGuardError")
    contracts = ("Contracts", "Base classes of your own methods, and what they receive and return.", rest)
    groups = {**GROUPS, "contracts": contracts}
    result = {
        f"api/{page}.rst": _page(
            title, lead, [*(f"fedguard.{n}" for n in names if n in public), *MORE.get(page, ())]
        )
        for page, (title, lead, names) in groups.items()
    }
    result["api/metrics.rst"] = _module(
        fedguard.evaluation.metrics.__name__, "Metrics", _functions(fedguard.evaluation.metrics)
    )
    for module in MODULES:
        names = importlib.import_module(module).__all__
        result[f"api/{module.rpartition('.')[2]}.rst"] = _module(module, f"``{module}``", names)
    result["api/errors.rst"] = _page("Errors", "Every error is a ``FedGuardError``.", _errors())
    result["api/index.rst"] = _contents("Python API", sorted(page[4:-4] for page in result))
    result["cli.rst"] = _cli()
    return result


def _functions(module: Any) -> list[str]:
    found = inspect.getmembers(module, inspect.isfunction)
    return [name for name, f in found if not name.startswith("_") and f.__module__.startswith("fedguard")]


def _errors() -> list[str]:
    found, todo = [], [fedguard.FedGuardError]
    while todo:
        cls = todo.pop()
        todo += [c for c in cls.__subclasses__() if c.__module__ == fedguard.FedGuardError.__module__]
        found.append(f"{cls.__module__}.{cls.__qualname__}")
    return sorted(found)


def _page(title: str, lead: str, names: list[str]) -> str:
    return "\n".join([_title(title, "="), lead, "", *(_entry(name) for name in names)])


def _module(module: str, title: str, names: list[str]) -> str:
    doc = inspect.getdoc(importlib.import_module(module)) or ""
    lead = re.sub(r"^(?=\S)(.*[^:])\n\n    (?=\S)", r"\1\n\n.. code-block:: python\n\n    ", doc)
    return _page(title, lead, [f"{module}.{name}" for name in names])


def _entry(name: str) -> str:
    module, _, attribute = name.rpartition(".")
    thing = getattr(importlib.import_module(module), attribute)
    if inspect.isclass(thing):
        return f".. autoclass:: {name}\n   :members:\n   :inherited-members: Exception, Method\n"
    return f".. autofunction:: {name}\n"


def _contents(title: str, pages: list[str]) -> str:
    return "\n".join(
        [_title(title, "="), ".. toctree::", "   :maxdepth: 2", "", *(f"   {p}" for p in pages), ""]
    )


@functools.cache
def command() -> click.Command:
    """The command line as click sees it, found the way pip installs it."""
    (script,) = entry_points(group="console_scripts", name="fedguard")
    return typer.main.get_command(script.load().__globals__["app"])


def _cli() -> str:
    lines = [
        _title("Command line", "="),
        "Written from the commands themselves; ``--help`` says the same.",
        "",
    ]
    for path, found in sorted(_commands(command(), "fedguard")):
        lines += [_title(path, "-"), _prose(found.help or ""), ""]
        arguments = [p for p in found.params if p.param_type_name == "argument"]
        usage = " ".join([path, *(p.make_metavar(click.Context(found)) for p in arguments)])
        lines += [".. code-block:: text", "", f"   {usage} [OPTIONS]", ""]
        shown = [p for p in found.params if not getattr(p, "hidden", False) and p.name != "help"]
        hints = typing.get_type_hints(inspect.unwrap(found.callback), include_extras=True)
        lines += [line for p in shown for line in _parameter(p, hints[p.name])] + [""]
    return "\n".join(lines)


def _commands(found: Any, path: str) -> list[tuple[str, Any]]:
    if not hasattr(found, "commands"):
        return [(path, found)]
    return [pair for name, sub in found.commands.items() for pair in _commands(sub, f"{path} {name}")]


def _parameter(p: Any, hint: Any) -> list[str]:
    said = next((m.help for m in getattr(hint, "__metadata__", ()) if getattr(m, "help", None)), p.help)
    names = ", ".join(f"``{n}``" for n in [*p.opts, *p.secondary_opts])
    names = f"``{p.human_readable_name}``" if p.param_type_name == "argument" else names
    default = p.default
    plain = isinstance(default, str | int | float) and not isinstance(default, bool)
    note = f" Default: ``{default}``." if plain and default != "" else ""
    return [f"{names}", f"   {_prose(said or '')}{note}", ""]


def _prose(text: str) -> str:
    """A command's help is plain text; only `code` in it is markup."""
    parts = re.split(r"(`[^`\n]+`)", " ".join(text.split()))
    return "".join(f"`{part}`" if part.startswith("`") else _text(part) for part in parts)
