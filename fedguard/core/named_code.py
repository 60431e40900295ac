"""Names of code, ``module:Class``: who may give them, and where the module is looked for.

Importing a module runs it. A name on the command line or in a suite of one's own may be imported; one that
came with a file of somebody else (a recording, a results folder) may not, unless ``--allow-code`` says so.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import ConfigError

#: The only texts that the registry imports, and so the only ones to look for.
CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")


def is_code(name: str) -> bool:
    """Whether a name is ``module:Class``."""
    return CODE.fullmatch(name) is not None


def code_in(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Every ``module:Class`` in plain data, with its key path. Bytes count: settings take them for text."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        if is_code(value):
            yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from code_in(item, (*path, key))
    elif isinstance(value, list | tuple | set | frozenset):
        for number, item in enumerate(value):
            yield from code_in(item, (*path, number))


def refusal(name: str) -> str:
    """What a message says about a name that may not be imported."""
    return (
        f"{name} is code, which would be imported and run; give --allow-code if you trust this file and that "
        "module, or name the class on the command line"
    )


def refuse_code(value: Any, file: Path, path: tuple[str | int, ...] = ()) -> None:
    """Refuse data out of a file that names code.

    Args:
        value: plain data: nested mappings and lists.
        file: where it comes from.
        path: its key path in the file.

    Raises:
        ConfigError: names the file, the key path and the class.
    """
    for place, name in code_in(value, path):
        raise ConfigError(f"{file}: {'.'.join(map(str, place))}: {refusal(name)}")


def find_here(value: Any) -> None:
    """Let modules be found in the current folder if the data, whose names may be imported, name code.

    The folder comes last, so that a torch.py that lies there is not taken for PyTorch.
    """
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path and any(code_in(value)):
        sys.path.append(here)
