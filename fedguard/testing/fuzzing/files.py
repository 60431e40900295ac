"""Shared by kinds of files: replacements for plain files, and files that must not be written."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from pathlib import Path

from .case import Forbidden, Rng
from .values import damaged, pick

#: The content of a link's target; a write through the link changes it.
SECRET = b"not to be written"


class Victim:
    """A file beside the artifact that nothing may change.

    Args:
        folder: its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "victim"
        self.path.write_bytes(SECRET)

    def unharmed(self) -> None:
        """Raise if it was changed."""
        if self.path.read_bytes() != SECRET:
            raise Forbidden("a file was written through a link")


def unplain(rng: Rng, path: Path, victim: Path) -> str:
    """Replace a file by a link, a pipe, a folder, or nothing."""
    kind = pick(rng, ("nothing", "folder", "link", "loop", "pipe", "endless", "link to itself elsewhere"))
    content = path.read_bytes() if path.is_file() else b""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "link":
        path.symlink_to(victim)
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "pipe" and hasattr(os, "mkfifo"):
        os.mkfifo(path)
    elif kind == "endless" and Path("/dev/zero").exists():
        path.symlink_to("/dev/zero")
    elif kind == "link to itself elsewhere":
        moved = victim.with_name("moved")
        moved.write_bytes(content)
        path.symlink_to(moved)
    return f"{path.name} is {kind}"


def damage(rng: Rng, path: Path) -> str:
    """Damage the bytes of a file."""
    path.write_bytes(damaged(rng, path.read_bytes()))
    return f"{path.name} damaged"


def no_formulas(text: str) -> None:
    """Raise if a spreadsheet would evaluate a cell of a CSV text as a formula."""
    for row in csv.reader(io.StringIO(text, newline="")):
        for cell in row:
            if cell[:1] in ("=", "@", "\t", "\r") or (cell[:1] in ("+", "-") and not _number(cell)):
                raise Forbidden(f"the CSV cell {cell[:20]!r} is a formula")


def _number(cell: str) -> bool:
    with contextlib.suppress(ValueError):
        float(cell)
        return True
    return False
