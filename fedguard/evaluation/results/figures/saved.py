"""Figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....core.errors import ConfigError, ParameterError
from ....core.files import not_written, write_atomically
from .style import Sheet

FORMATS = (".png", ".svg", ".pdf")


def save(figure: Any, out: Path, sheet: Sheet) -> None:
    """Write a figure; the same figure gives the same bytes.

    Raises:
        ConfigError: the file cannot be written.
    """
    ending = out.suffix[1:].lower()
    about = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(ending, {})
    try:
        with sheet.style():
            write_atomically(out, lambda to: figure.savefig(to, dpi=200, format=ending, metadata=about))
    except OSError as error:
        raise ConfigError(not_written(out, error)) from None


def check_format(out: Path) -> None:
    """Refuse a name that says no format.

    Raises:
        ParameterError: it ends in something else.
    """
    if out.suffix.lower() not in FORMATS:
        raise ParameterError(f"cannot write {out.name}: use a name that ends in {', '.join(FORMATS)}")
