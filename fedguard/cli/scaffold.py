"""``fedguard new``: create a method and its test, ready to run."""

from __future__ import annotations

import datetime
import keyword
from importlib.resources import files
from pathlib import Path

from ..core.errors import ConfigError
from ..core.files import why, write_file

KINDS = ("detector", "attack")


def scaffold(kind: str, name: str, folder: Path) -> list[Path]:
    """Write ``name.py`` and ``test_name.py``, and return both paths.

    Raises:
        ConfigError: the kind is unknown, the name is not a valid module name, or a file already exists.
    """
    if kind not in KINDS:
        raise ConfigError(f"cannot write a new {kind!r}; choose from {', '.join(KINDS)}")
    if not name.isidentifier() or name != name.lower() or keyword.iskeyword(name):
        raise ConfigError(f"{name!r} cannot be the name of a {kind}: use lower_case_with_underscores")
    words = {
        "name": name,
        "cls": "".join(part.capitalize() for part in name.split("_")),
        "title": name.replace("_", " ").capitalize(),
        "year": str(datetime.date.today().year),
    }
    paths = [folder / f"{name}.py", folder / f"test_{name}.py"]
    there = [path for path in paths if path.exists() or path.is_symlink()]
    if there:
        raise ConfigError(f"{there[0]} already exists; choose another name or remove it")
    for path, template in zip(paths, (f"{kind}.py.txt", f"test_{kind}.py.txt"), strict=True):
        text = (files("fedguard.cli") / "templates" / template).read_text(encoding="utf-8")
        try:
            write_file(path, text.format(**words))
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {why(error)}") from None
    return paths
