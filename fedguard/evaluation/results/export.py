"""The detection-metrics table as CSV, Markdown, LaTeX, JSON or Parquet."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ..cells import csv_text, markdown_cell
from .latex import latex_table
from .layout import Layout, numbers, selected, words
from .marks import marked
from .store import Store

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "markdown", "latex", "json", "parquet")


def export(store: Store, format: str, layout: Layout | None = None) -> bytes:
    """The table of a results folder, as the bytes of a file (text is UTF-8).

    CSV, JSON and Parquet hold numbers at full precision: rates as fractions, with counts and intervals in
    other columns, empty or null if undefined. Markdown and LaTeX (booktabs) are rounded, in percent, with
    95 % intervals over seeds, with the best defense in bold where it differs from the next one, see
    :func:`.marks.marks`.

    Raises:
        ParameterError: unknown format, nothing to show, or Parquet without its extra.
        ResultsError: the folder holds no finished run.
    """
    layout = layout or Layout()
    return rendered(store, selected(store, layout), format, layout)


def rendered(store: Store, frame: pd.DataFrame, format: str, layout: Layout) -> bytes:
    """A store's selected frame as the bytes of a file, see :func:`export`."""
    if format == "csv":
        return _text(csv_text(numbers(frame, layout)))
    if format == "json":
        return _text(numbers(frame, layout).to_json(orient="records", indent=2) + "\n")
    if format == "parquet":
        return _parquet(numbers(frame, layout))
    if format == "markdown":
        found = marked(store, frame, layout.values)
        return _text(_markdown(words(frame, layout, "**{}**".format, found), frame))
    if format == "latex":
        return _text(latex_table(store, frame, layout))
    raise ParameterError(f"unknown format {format!r}; use {', '.join(FORMATS)}")


def _text(text: Any) -> bytes:
    return str(text).encode()


def _parquet(frame: pd.DataFrame) -> bytes:
    extra_module("pyarrow", "parquet", "Parquet")
    buffer = io.BytesIO()
    frame.to_parquet(buffer, index=False)
    return buffer.getvalue()


def _markdown(table: pd.DataFrame, frame: pd.DataFrame) -> str:
    for name in _left(table, frame):
        table[name] = table[name].map(markdown_cell)
    named = table.rename(columns=markdown_cell)
    return str(named.to_markdown(index=False, disable_numparse=True)) + "\n"


def _left(table: pd.DataFrame, frame: pd.DataFrame) -> list[str]:
    """The columns that hold labels, not numbers."""
    titles = ["defense" if key == "defense" else key for key in frame.attrs["keys"]]
    return [str(name) for name in table if name in [*titles, "basis"]]
