"""Which data a results folder is of: the fingerprint of every data set, so that changed data are noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from ...core.errors import ResultsError
from ...simulation.recorded import LIVE
from ...simulation.setup import dataset_of
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
    """The fingerprints of a suite's data sets by their keys, ``Spec.key``; each data set is read once.

    Raises:
        DataError: a data set cannot be read.
    """
    specs = {cell.data.key: cell.data for cell in suite.cells() if cell.data.name != LIVE}
    return {key: dataset_of(spec).fingerprint for key, spec in specs.items()}


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
    """Note a suite's data in its results folder, or refuse to resume if they are not those in it.

    Raises:
        ResultsError: the data have changed since; says which.
        DataError: a data set cannot be read.
    """
    now, then = fingerprints(suite), stored_data(store)
    changed = [key for key in now if then.get(key, now[key]) != now[key]]
    if changed:
        raise ResultsError(
            f"{store.folder} already holds results of other data: {named(changed[0])} has changed since "
            f"(fingerprint {then[changed[0]][:12]}, now {now[changed[0]][:12]}); restore the data, or give "
            "another folder with --out"
        )
    if now.keys() - then.keys():
        store.note("data", json.dumps({**then, **now}))


def named(key: str) -> str:
    """A data set's key as words: ``csv (label = diagnosis, path = hospital.csv)``."""
    try:
        spec = json.loads(key)
        name = str(spec.pop("name"))
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return short(key)
    params = ", ".join(f"{name} = {value}" for name, value in spec.items())
    return short(f"{name} ({params})" if params else name)
