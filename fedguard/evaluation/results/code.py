"""The version of the code that produced a result."""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import json
import runpy
import sys
from importlib.resources import files
from importlib.resources.abc import Traversable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ...core.version import __version__
from ..terminal import plain

_SHOWING = (
    *("compare", "export", "folders", "glossary", "latex", "layout", "marks", "paired", "plot"),
    *("plot_holdings", "ranks", "settled", "versus"),
)
_TELLING = ("costs", "estimate", "follow", "json_lines", "live", "sampling", "stored_times", "trackers")
#: Folders and files of FedGuard whose code changes no result.
_IRRELEVANT = (
    *(f"evaluation/results/{name}.py" for name in _SHOWING),
    *(f"evaluation/running/{name}.py" for name in _TELLING),
    "cli/",
    "serve/",
    "testing/",
    "observers/",
    "evaluation/results/figures/",
    "evaluation/results/report/",
)


@functools.cache
def code_version() -> str:
    """FedGuard's and torch's versions and a hash of FedGuard's sources; equal strings mean equal results."""
    digest = hashlib.sha256()
    for name, text in sorted(_all_sources().items()):
        digest.update(f"{name}\n".encode() + text)
    return f"{__version__}+{digest.hexdigest()[:12]} torch {torch_version()}"


def torch_version() -> str:
    """``torch.__version__``, read from torch's own file: importing torch takes most of a second."""
    if "torch" in sys.modules:
        return str(sys.modules["torch"].__version__)
    found = find_spec("torch")
    if found is None or found.origin is None:
        raise ImportError("torch is not installed")
    return str(runpy.run_path(str(Path(found.origin).with_name("version.py")))["__version__"])


def other_code(version: str, sources: str) -> str:
    """How this code differs from that of some results, as the end of a sentence about them; empty if equal.

    Args:
        version: their :func:`code_version`.
        sources: their :func:`functional_code`; empty if it was not kept.
    """
    if version == code_version():
        return ""
    words = f"of another version of the code ({plain(version, 100)}, this is {code_version()})"
    if _release(version) != _release(code_version()):
        return words
    changed = _changed(sources)
    return f"{words}: {changed}" if changed else ""


def _release(version: str) -> tuple[str, str]:
    """FedGuard's and torch's versions."""
    return version.partition("+")[0], version.partition(" torch ")[2]


@functools.cache
def functional_code() -> str:
    """What of FedGuard's code may change results: a digest per file, as JSON.

    Comments, docstrings and layout do not count, nor do files that only show results. Digests of two
    versions of Python cannot be compared.
    """
    python = "{}.{}".format(*sys.version_info)
    kept = {name: text for name, text in sorted(_all_sources().items()) if _counts(name)}
    collecting = gc.isenabled()
    gc.disable()  # a syntax tree has many objects and no cycles: a fifth of the time
    try:
        return json.dumps(
            {"python": python, **{name: functional_digest(text) for name, text in kept.items()}}
        )
    finally:
        if collecting:
            gc.enable()


def _counts(name: str) -> bool:
    """Whether a file's code may change results."""
    return not name.removeprefix("fedguard/").startswith(_IRRELEVANT)


def _changed(before: str) -> str:
    """How the functional code differs from an earlier one, in words; empty if it does not."""
    now = json.loads(functional_code())
    try:
        then = json.loads(before)
    except (ValueError, RecursionError):
        then = None
    if not isinstance(then, dict):
        return "it is not known which files have changed since"
    if then.get("python") != now["python"]:
        return f"it ran with Python {plain(then.get('python'), 9)}, this is {now['python']}"
    files = [name for name in now if now[name] != then.get(name)]
    files += [plain(name, 100) for name in then if name not in now and _counts(name)]
    if not files:
        return ""
    more = f" and {len(files) - 3} more" if len(files) > 3 else ""
    return f"{', '.join(files[:3])}{more} {'has' if len(files) == 1 else 'have'} changed since"


def functional_digest(text: bytes) -> str:
    """A digest of a file's code without comments, docstrings and layout."""
    tree = ast.parse(text)
    _drop_docstrings(tree)
    return hashlib.sha256(ast.dump(tree).encode(errors="backslashreplace")).hexdigest()[:12]


def _drop_docstrings(node: Any) -> None:
    for name in ("body", "orelse", "finalbody", "handlers", "cases"):
        statements = getattr(node, name, None)
        if isinstance(statements, list):
            first = statements[0] if statements else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                del statements[0]
            for statement in statements:
                _drop_docstrings(statement)


def _all_sources() -> dict[str, bytes]:
    return {
        f"{package}/{name}": text
        for package in ("fedguard", "fedguard.detectors", "fedguard.attacks")
        for name, text in _sources(files(package), "")
    }


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            found.append((prefix + entry.name, entry.read_bytes()))
    return found
