"""Whether a results folder is finished and nothing has changed since, decided without importing torch.

Every check of a suite is a function of the suite's settings, FedGuard's and torch's code, the bytes of the
data files and what is in the results folder. A suite that has run to its end leaves a digest of these in the
folder. As long as the digest is the same, the checks would find what they found then, so the results can be
shown at once. If it differs in anything, everything is checked as ever.

Suites whose results depend on more have no digest: code that is not FedGuard's, a recording, pretrained
weights, data sets that :data:`FILES` does not list.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...core.entry_points import plug_ins
from ...core.errors import ResultsError
from ...core.files import sha256_of
from ...simulation.specs import Spec
from ..suites.suite import Suite
from .code import code_version
from .store import Store, refuse_links

#: The name of the digest among the facts of a results folder.
FACT = "settled"
#: The settings that may name code.
_NAMING = {"partition", "model", "training", "attacks", "defenses", "grid"}


def _digits(_: dict[str, Any]) -> list[Path]:
    spec = find_spec("sklearn")
    origin = None if spec is None else spec.origin
    return [] if origin is None else [Path(origin).parent / "datasets" / "data" / "digits.csv.gz"]


def _named(params: dict[str, Any]) -> list[Path]:
    names = (params.get("path"), params.get("test_path"))
    return [Path(name).expanduser() for name in names if isinstance(name, str)]


#: Data set → the files that it is read from, by its parameters; with NumPy, they determine the data.
FILES: dict[str, Callable[[dict[str, Any]], list[Path]]] = {"digits": _digits, "csv": _named, "npz": _named}


def inputs_of(suite: Suite) -> str | None:
    """A digest of all that decides what a suite's runs and their checks give; None if that is not known.

    Take it before the data are read, too: :func:`settle` wants to know that they stayed the same.
    """
    if suite.recording is not None or _names_code(suite) or plug_ins():
        return None
    cells = suite.cells()
    if any(cell.model.params.get("weights") is not None for cell in cells):
        return None
    specs = {cell.data.key: cell.data for cell in cells}
    data = {key: _hashes(spec) for key, spec in specs.items()}
    if not all(data.values()):
        return None
    versions = [code_version(), sys.version, np.__version__]
    return _digest([suite.model_dump(mode="json"), versions, data])


def settle(store: Store, suite: Suite, inputs: str | None) -> None:
    """Note in a results folder that all of a suite's runs are there.

    Args:
        store: the folder, after the suite has run to its end.
        suite: the suite.
        inputs: :func:`inputs_of` from before the data were read. Nothing is noted if it has changed.
    """
    if inputs is not None and inputs == inputs_of(suite):
        seal = _seal(store, inputs)
        if store.fact(FACT) != seal:
            store.note(FACT, seal)


def settled(folder: Path, suite: Suite, inputs: str | None) -> Store | None:
    """The store of a folder with all of a suite's runs; None if something is missing or may have changed.

    Args:
        folder: the folder.
        suite: the suite.
        inputs: :func:`inputs_of` the suite, now.
    """
    if inputs is None or not (folder / "results.sqlite").exists():
        return None
    try:
        refuse_links(folder)
        store = Store(folder)
        same = store.fact(FACT) == _seal(store, inputs) and not store.other_code()
        return store if same and set(store.finished()) == set(range(len(suite.cells()))) else None
    except (OSError, ResultsError):
        return None  # the checks say what is wrong


def _seal(store: Store, inputs: str) -> str:
    """A digest of the inputs and of what of the folder is compared with them."""
    return _digest([inputs, sha256_of(store.folder / "suite.yaml"), store.fact("data")])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _names_code(suite: Suite) -> bool:
    """Whether a part may be code, of a library, or given from Python: such names have a colon."""
    return any(":" in text for text in _texts(suite.model_dump(mode="json", include=_NAMING)))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(key)
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _hashes(spec: Spec) -> list[str]:
    """The checksums of a data set's files; empty if they are not known or cannot be read."""
    if spec.name not in FILES:
        return []
    try:
        return [sha256_of(path) for path in FILES[spec.name](spec.params)]
    except (OSError, ValueError):
        return []
