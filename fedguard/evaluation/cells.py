"""Untrusted text in CSV and Markdown tables, escaped so that spreadsheets and browsers do not run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .terminal import plain

if TYPE_CHECKING:
    import pandas as pd

#: First characters that make a spreadsheet read a cell as a formula.
FORMULA = "=+-@\t\r\n"
_MARKDOWN = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {sign: f"\\{sign}" for sign in "\\`|*[]"}
)


def csv_cell(value: Any) -> Any:
    """A cell of a CSV file; an apostrophe precedes text that begins like a formula.

    Numbers stay as they are, including those given as text ("-1.5"). Signs that cannot be printed become
    their codes, except those that CSV can hold in quotes: the file may be shown on a terminal.
    """
    if not isinstance(value, str):
        return value
    text = "".join(sign if sign in FORMULA else plain(sign) for sign in value)
    return f"'{text}" if text.startswith(tuple(FORMULA)) and not _is_number(text) else text


def csv_text(frame: pd.DataFrame) -> str:
    """A table as CSV; headings and text pass through :func:`csv_cell`."""
    safe = frame.rename(columns=csv_cell)
    for place, kind in enumerate(safe.dtypes):
        if kind.kind not in "biufc":
            safe.isetitem(place, [csv_cell(value) for value in safe.iloc[:, place]])
    return str(safe.to_csv(index=False))


def markdown_cell(value: Any) -> str:
    """A cell of a Markdown table; escapes cell borders, markup and HTML."""
    return plain(value).translate(_MARKDOWN)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isprintable()
