"""Names of code, ``module:Class``: which sources may name code, and where modules are searched.

Importing a module runs it. FedGuard imports names from the command line and from the user's own suite. It
refuses names from files of other people (a recording, a results folder), unless ``--allow-code`` is given.

``library:NAME`` is no code: a fixed list of libraries, of which only models, data sets and partitions that
the library itself lists can be named. What would be downloaded from where anybody may publish
(``huggingface:``, ``openml:``, ``hf:``) is refused as code is. ``given:NAME@FINGERPRINT`` is an object that
the caller of :func:`fedguard.evaluate` gave.
"""

from __future__ import annotations

import contextlib
import importlib
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .errors import ConfigError

#: Keys and positions that lead to a value.
Place: TypeAlias = tuple[str | int, ...]
#: The form of every name that the registry imports.
CODE = re.compile(r"[^\W\d][\w.]*:[^\W\d]\w*")
#: Prefixes that name something of a library, which is looked up and not imported by name.
LIBRARIES = frozenset({"torchvision", "timm", "huggingface", "openml", "flwr", "hf"})
#: Data sets, models and tokenizers on servers where anybody may publish: strangers' files must not choose
#: what is downloaded. The tiny language models are made on the spot.
REMOTE = re.compile(r"(?:huggingface|openml):\S+|hf:(?!tiny-(?:bert|gpt)$)\S+")
#: The prefix of objects that were given from Python.
GIVEN_PREFIX = "given"
#: Objects given from Python: NAME@FINGERPRINT → object; a suite refers to them by ``given:NAME@FINGERPRINT``.
GIVEN: dict[str, Any] = {}
_GIVERS: Counter[str] = Counter()  # name → blocks that give it


@contextlib.contextmanager
def giving(objects: Mapping[str, Any]) -> Iterator[None]:
    """Within the block, suites can refer to these objects; blocks may overlap, also in several threads."""
    for name in objects:
        _GIVERS[name] += 1
    GIVEN.update(objects)
    try:
        yield
    finally:
        for name in objects:
            _GIVERS[name] -= 1
            if not _GIVERS[name]:
                GIVEN.pop(name, None)


def without_fingerprint(name: str) -> str:
    """``given:NAME@FINGERPRINT`` as NAME; every other name as it is."""
    prefix, _, rest = name.partition(":")
    return rest.partition("@")[0] if prefix == GIVEN_PREFIX and rest else name


def is_code(name: str) -> bool:
    """Whether a name is ``module:Class``, which is imported."""
    prefix = name.partition(":")[0]
    return CODE.fullmatch(name) is not None and prefix not in LIBRARIES and prefix != GIVEN_PREFIX


def load_code(name: str, kind: str = "object") -> Any:
    """The object that ``module:Class`` or ``given:NAME`` refers to; ``kind`` says in messages what it is.

    Raises:
        ConfigError: it is no such name, the module or the attribute cannot be loaded, or no such object was
            given.
    """
    module, _, attribute = name.partition(":")
    if module == GIVEN_PREFIX:
        if attribute not in GIVEN:
            raise ConfigError(
                f"{kind} {name!r}: no such object was given; it came from Python, so call fedguard.evaluate "
                "with it again"
            )
        return GIVEN[attribute]
    if not is_code(name):  # what :func:`code_in` does not recognize must not be imported either
        raise ConfigError(f"cannot load {kind} {name!r}: write module:name")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a user's module may raise anything
        raise ConfigError(f"cannot load {kind} {name!r}: {error}") from error


def code_in(value: Any) -> Iterator[str]:
    """Every ``module:Class`` in plain data; also in bytes, which settings read as text."""
    return (name for _, name in _texts_in(value, ()) if is_code(name))


def untrusted_in(value: Any, path: Place = ()) -> Iterator[tuple[Place, str]]:
    """Every name in plain data that a stranger must not choose, with its key path: code and downloads."""
    texts = _texts_in(value, path)
    return ((place, name) for place, name in texts if is_code(name) or REMOTE.fullmatch(name))


def _texts_in(value: Any, path: Place) -> Iterator[tuple[Place, str]]:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts_in(item, (*path, key))
    elif isinstance(value, list | tuple | set | frozenset):
        for number, item in enumerate(value):
            yield from _texts_in(item, (*path, number))


def refusal(name: str) -> str:
    """The error message for a name that must not be imported or downloaded."""
    if not is_code(name):
        return (
            f"{name} would be downloaded from a server where anybody may publish; give --allow-code if you "
            "trust this file and what it names"
        )
    return (
        f"{name} is code, which would be imported and run; give --allow-code if you trust this file and that "
        "module, or name the class on the command line"
    )


def refuse_code(value: Any, file: Path, path: Place = ()) -> None:
    """Refuse data from a file if it names code, or data on a server.

    Args:
        value: plain data: nested mappings and lists.
        file: the file that the data come from.
        path: the data's key path in the file.

    Raises:
        ConfigError: names the file, the key path and the class.
    """
    for place, name in untrusted_in(value, path):
        raise ConfigError(f"{file}: {'.'.join(map(str, place))}: {refusal(name)}")


def find_here(value: Any) -> None:
    """Add the current folder to ``sys.path`` if data from a trusted source name code.

    The folder comes last, so that a file torch.py in it does not shadow PyTorch.
    """
    here = str(Path.cwd())
    if "" not in sys.path and here not in sys.path and any(code_in(value)):
        sys.path.append(here)
