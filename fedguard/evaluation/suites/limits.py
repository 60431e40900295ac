"""How large a suite may be, and what it and its entries may be called; checked when it is read."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

#: The most runs of one suite, the most points of its grid, and the most bytes of a label, which becomes part
#: of a file's name.
MAX_RUNS, MAX_POINTS, MAX_LABEL = 100_000, 1_000, 100
#: The most seeds: each deals the data anew when a suite is checked.
MAX_SEEDS = 1_000


def folder_name(name: str) -> str:
    """The results folder lies below ``results``, wherever a suite comes from."""
    if not name or name.startswith((".", "-")) or not name.isprintable() or set(name) & set("/\\:"):
        raise ValueError("a suite is called like a folder: no '/', '\\' or ':', no '.' or '-' in front")
    if len(name.encode()) > 2 * MAX_LABEL:
        raise ValueError(f"a suite is called like a folder: no more than {2 * MAX_LABEL} bytes")
    return name


def _label_text(label: str) -> str:
    """Recordings and pictures are called after it."""
    if not label.strip() or not label.isprintable():
        raise ValueError(f"the label {label!r} has characters that cannot be printed, or none")
    if len(label.encode()) > MAX_LABEL:
        raise ValueError(f"a label of {len(label.encode()):,} bytes; use {MAX_LABEL} at most")
    return label


#: What a suite calls an attack or a defense.
Label = Annotated[str, AfterValidator(_label_text)]
