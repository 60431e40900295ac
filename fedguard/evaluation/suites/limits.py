"""Limits on the size of a suite and on names in it, checked when it is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

#: The most runs of one suite, the most points of its grid, and the most bytes of a label, which becomes part
#: of a file's name.
MAX_RUNS, MAX_POINTS, MAX_LABEL = 100_000, 1_000, 100
#: The most seeds: checking a suite partitions the data for each of them.
MAX_SEEDS = 1_000


def folder_name(name: str) -> str:
    """Refuse names that would put the results folder outside ``results``."""
    if not name or name.startswith((".", "-")) or not name.isprintable() or set(name) & set("/\\:"):
        raise ValueError(
            "a suite's name is a folder's name: use no '/', '\\' or ':', and no '.' or '-' in front"
        )
    if len(name.encode()) > 2 * MAX_LABEL:
        raise ValueError(f"a suite's name is a folder's name: use no more than {2 * MAX_LABEL} bytes")
    return name


def _label_text(label: str) -> str:
    """Refuse labels that cannot be part of the file names of recordings and pictures."""
    if not label.strip() or not label.isprintable():
        raise ValueError(f"the label {label!r} has characters that cannot be printed, or none")
    if len(label.encode()) > MAX_LABEL:
        raise ValueError(f"a label of {len(label.encode()):,} bytes; use {MAX_LABEL} at most")
    return label


#: The label of an attack or a defense in a suite.
Label = Annotated[str, AfterValidator(_label_text)]
