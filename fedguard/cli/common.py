"""What several commands need."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.errors import ConfigError
from ..core.files import why, write_file

DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with the data sets; the environment variable FEDGUARD_DATA otherwise."),
]


def write(content: bytes, out: Path | None) -> None:
    """Write to a file, or to the screen if there is none."""
    if out is None:
        sys.stdout.buffer.write(content)
        return
    try:
        write_file(out, content)
    except OSError as error:
        raise ConfigError(f"cannot write {out}: {why(error)}") from None


def set_data_root(folder: Path | None) -> None:
    """Let data sets be read from a folder, if one is given."""
    if folder is not None:
        os.environ["FEDGUARD_DATA"] = str(folder.expanduser().absolute())


def cores() -> int:
    """The cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def print_table(table: Any) -> None:
    """Print anything that rich can; files and pipes are 120 columns wide."""
    from ..evaluation.terminal import terminal

    terminal(piped_width=120).print(table)
