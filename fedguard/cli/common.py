"""Helpers shared by several commands."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from ..core.cores import cores
from ..core.errors import ConfigError
from ..core.files import not_written, write_file

__all__ = [
    "AllowRecordedCode",
    "DataRoot",
    "RecordedModel",
    "RootData",
    "ValidationData",
    "cores",
    "print_table",
    "set_data_root",
    "write",
]

DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder with the data sets; by default, the environment variable FEDGUARD_DATA."),
]
#: Options of the commands that read a recording.
AllowRecordedCode = Annotated[
    bool, typer.Option("--allow-code", help="Import classes (module:Class) named by the recording.")
]
RecordedModel = Annotated[
    str | None, typer.Option(help="For a live recording: a suite's model, or module:function.")
]
ValidationData = Annotated[
    Path | None, typer.Option(help="Validation data: .npz or .safetensors with inputs and labels.")
]
RootData = Annotated[Path | None, typer.Option(help="Root data, likewise.")]


def write(content: bytes, out: Path | None) -> None:
    """Write to a file, or to standard output if ``out`` is None."""
    if out is None:
        sys.stdout.buffer.write(content)
        return
    try:
        write_file(out, content)
    except OSError as error:
        raise ConfigError(not_written(out, error)) from None


def set_data_root(folder: Path | None) -> None:
    """Set the folder that data sets are read from, if one is given."""
    if folder is not None:
        os.environ["FEDGUARD_DATA"] = str(folder.expanduser().absolute())


def print_table(table: Any) -> None:
    """Print a rich renderable; files and pipes get 120 columns."""
    from ..evaluation.terminal import terminal

    terminal(piped_width=120).print(table)
