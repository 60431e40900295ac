"""Which folder results go to, and whose a folder is."""

from __future__ import annotations

from pathlib import Path

from ...core.errors import ResultsError
from ...core.files import is_file
from ...core.folder_marks import INDEX, OLD_INDEX, RESULTS, TUNING
from ..suites.suite import Suite
from .data import sign_data
from .store import Store


def last_folder(base: Path) -> Path:
    """The last of ``base``, ``base-2``, ``base-3`` … that holds results; ``base`` if none does."""
    last, number, candidate = base, 1, base
    while (candidate / "results.sqlite").exists():
        last, number = candidate, number + 1
        candidate = base.with_name(f"{base.name}-{number}")
    return last


def folder_for(base: Path, suite: Suite, force: bool = False) -> Path:
    """The folder to run a suite in: ``base``, ``base-2``, ``base-3`` …

    Returns the last existing one if it holds an unfinished run of the same suite, code (unless ``force``)
    and data, otherwise the first without results.
    """
    last = last_folder(base)
    if not (last / "results.sqlite").exists():
        return base
    try:
        store = Store.create(last, suite, force)
        sign_data(store, suite)
        unfinished = len(store.finished()) < len(suite.cells())
    except ResultsError:
        unfinished = False
    if unfinished:
        return last
    number = 2 if last == base else int(last.name.rpartition("-")[2]) + 1
    return base.with_name(f"{base.name}-{number}")


def from_elsewhere(suite: str) -> bool:
    """Whether a suite is part of a results folder, search or recording, which may be someone else's."""
    path = Path(suite)
    if not is_file(path):
        return False
    marks = (RESULTS, TUNING, INDEX, OLD_INDEX)
    parents = {*path.absolute().parents, *path.resolve().parents}
    return any((parent / mark).exists() for parent in parents for mark in marks)
