"""``fedguard new``: create a method or a part of the federation and its test, ready to run."""

from __future__ import annotations

import datetime
import importlib.util
import keyword
import os
from importlib.resources import files
from pathlib import Path

from ..core.errors import ConfigError
from ..core.files import not_written, write_file
from ..core.params import nearest

KINDS = ("detector", "attack", "aggregator", "policy", "stage", "model", "dataset", "partition")
#: Those whose template is a function, which has the file's name.
FUNCTIONS = ("dataset", "partition")


def scaffold(kind: str, name: str, folder: Path) -> list[Path]:
    """Write ``name.py`` and ``test_name.py``, and return both paths.

    Raises:
        ConfigError: the kind is unknown, the name is not a valid module name, or a file already exists.
    """
    if kind not in KINDS:
        hint = f"{nearest(kind, KINDS)}; choose from {', '.join(KINDS)}"
        raise ConfigError(f"cannot write a new {kind!r}{hint}")
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name):
        more = ", and no word of Python's" if keyword.iskeyword(name) else ""
        raise ConfigError(f"{name!r} cannot be the name of a {kind}: use lower_case_with_underscores{more}")
    words = {
        "name": name,
        "cls": class_name(name),
        "title": name.replace("_", " ").capitalize(),
        "year": str(datetime.date.today().year),
    }
    paths = [folder / f"{name}.py", folder / f"test_{name}.py"]
    there = [path for path in paths if os.path.lexists(path)]
    if there:
        raise ConfigError(f"{there[0]} already exists; choose another name or remove it")
    for path, template in zip(paths, (f"{kind}.py.txt", f"test_{kind}.py.txt"), strict=True):
        text = (files("fedguard.cli") / "templates" / template).read_text(encoding="utf-8")
        try:
            write_file(path, text.format(**words))
        except OSError as error:
            raise ConfigError(not_written(path, error, "change to a folder of yours first")) from None
    return paths


def class_name(name: str) -> str:
    """The class of a new method: MyScorer of my_scorer."""
    return "".join(part.capitalize() for part in name.split("_"))


def target(kind: str, name: str) -> str:
    """What a new method is called on the command line and in suites: module:name."""
    return f"{name}:{name if kind in FUNCTIONS else class_name(name)}"


def shadowed(kind: str, name: str, yours: str) -> str:
    """The warning that a registered name is taken."""
    return f"there is a {kind} {name!r} already, and `{name}` alone still means that one: yours is {yours}"


def shadows(kind: str, name: str) -> str:
    """A warning if something else has this name already; else empty."""
    from ..testing.kinds import names_of, plural_of

    if name in names_of(plural_of(kind)):
        return shadowed(kind, name, target(kind, name))
    if importlib.util.find_spec(name) is not None:
        return (
            f"there is a Python module {name!r} already, which `import {name}` may find instead of your "
            "file; choose another name"
        )
    return ""
