"""Which data and weights a results folder is of: their fingerprints, so that changed ones are noticed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ...core.errors import DataError, ResultsError
from ...core.files import sha256_of, why
from ...simulation.specs import LIVE
from ..suites.source import short
from ..suites.suite import Suite


class Facts(Protocol):
    """What is needed of a :class:`.store.Store`."""

    folder: Path
    path: Path

    def fact(self, name: str) -> str | None:
        """A fact about the whole folder."""
        ...

    def note(self, name: str, value: str) -> None:
        """Write such a fact."""
        ...


def fingerprints(suite: Suite) -> dict[str, str]:
    """The fingerprints of a suite's data sets, and of files of weights, by the keys of their specs.

    Each data set is read once.

    Raises:
        DataError: a data set or a file of weights cannot be read.
    """
    from ...simulation.setup import dataset_of  # it imports torch

    cells = suite.cells()
    specs = {cell.data.key: cell.data for cell in cells if cell.data.name != LIVE}
    models = {cell.model.key: cell.model.params for cell in cells}
    data = {key: dataset_of(spec).fingerprint for key, spec in specs.items()}
    return data | {key: _hash(str(params["weights"])) for key, params in models.items() if _weighted(params)}


def _weighted(params: Mapping[str, Any]) -> bool:
    """Whether a model begins with the weights in a file."""
    return params.get("weights") not in (None, "none")


def _hash(path: str) -> str:
    try:
        return sha256_of(Path(path))
    except OSError as error:
        raise DataError(f"the weights in {path} cannot be read: {why(error)}") from None


def stored_data(store: Facts) -> dict[str, str]:
    """The fingerprints in a results folder; empty for those of older versions.

    Raises:
        ResultsError: they cannot be read.
    """
    text = store.fact("data")
    try:
        found = json.loads(text or "{}")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ResultsError(f"{store.path}: the fingerprints of the data are not JSON; use another copy of it")
    return found


def sign_data(store: Facts, suite: Suite) -> None:
    """Note a suite's data and weights in its results folder, or refuse to resume if they are not those in it.

    Raises:
        ResultsError: they have changed since; says which.
        DataError: a data set or a file of weights cannot be read.
    """
    now, then = fingerprints(suite), stored_data(store)
    changed = [key for key in now if then.get(key, now[key]) != now[key]]
    if changed:
        key = changed[0]
        what = "data" if any(cell.data.key == key for cell in suite.cells()) else "weights"
        raise ResultsError(
            f"{store.folder} already holds results of other {what}: {named(key)} has changed since "
            f"(fingerprint {then[key][:12]}, now {now[key][:12]}); restore the {what}, or give another "
            "folder with --out"
        )
    if now.keys() - then.keys():
        store.note("data", json.dumps({**then, **now}))


def named(key: str) -> str:
    """The key of a data set or a model as words: ``csv (label = diagnosis, path = hospital.csv)``."""
    try:
        spec = json.loads(key)
        name = str(spec.pop("name"))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return short(key)
    params = ", ".join(f"{name} = {value}" for name, value in spec.items())
    return short(f"{name} ({params})" if params else name)
