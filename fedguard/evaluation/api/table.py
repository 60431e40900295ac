"""A table of results: shown in a notebook, and written as LaTeX, Markdown or CSV."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.errors import ConfigError
from ...core.files import not_written, write_file
from ..results.export import rendered
from ..results.layout import Layout, numbers, selected, words
from ..results.marks import marked
from ..results.store import Store
from ..results.tables import columns_named, defined

if TYPE_CHECKING:
    import pandas as pd

_BEST, _END = "\x02", "\x03"
_STYLE = "text-align: {}; padding: 0.2em 0.6em"


class Table:
    """A table of results, with the best defense in bold where it differs from the next one.

    A notebook shows it, and ``str`` gives it as text (* marks the best).

    Args:
        store: the results.
        layout: its rows, columns and values.

    Raises:
        ParameterError: there is no such setting or metric, or nothing is left to show.
        ResultsError: there is no finished run.
    """

    def __init__(self, store: Store, layout: Layout) -> None:
        columns_named(layout.values)
        self._store = store
        self._layout = layout
        self._selected = selected(store, layout)
        self._marks = marked(store, self._selected, layout.values)

    @property
    def frame(self) -> pd.DataFrame:
        """The table as numbers at full precision: rates as fractions, ``_ci`` for the intervals."""
        return numbers(self._selected, self._layout)

    @property
    def caption(self) -> str:
        """What the numbers are; the metrics only where the headings do not say it."""
        used = defined(self._selected, columns_named(self._layout.values))
        seeds = int(self._selected["seeds"].max())
        over = f"mean ± 95 % confidence interval over {seeds} seeds" if seeds > 1 else "1 seed"
        joined = self._layout.joined or (self._layout.columns and len(used) == 1)
        return f"{'/'.join(column.title for column in used)}; {over}" if joined else over

    def __str__(self) -> str:
        table = words(self._selected, self._layout, "{}*".format, self._marks)
        return f"{table.to_markdown(index=False, tablefmt='simple', disable_numparse=True)}\n{self.caption}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        table = words(self._selected, self._layout, f"{_BEST}{{}}{_END}".format, self._marks)
        labels = {*self._selected.attrs["keys"], "basis"}
        sides = [_STYLE.format("left" if name in labels else "right") for name in table]
        head = "".join(
            f'<th style="{s}">{escape(str(name))}</th>' for name, s in zip(table, sides, strict=True)
        )
        lines = [
            "".join(f'<td style="{s}">{_cell(v)}</td>' for v, s in zip(row, sides, strict=True))
            for row in table.itertuples(index=False)
        ]
        body = "".join(f"<tr>{line}</tr>" for line in lines)
        return (
            f"<table><caption>{escape(self.caption)}; best in bold</caption>"
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        )

    def to_latex(self, path: str | Path | None = None) -> str:
        """LaTeX (booktabs), also written to a file if one is given; raises ConfigError if that fails."""
        return self._text("latex", path)

    def to_markdown(self, path: str | Path | None = None) -> str:
        """Markdown, also written to a file if one is given; raises ConfigError if that fails."""
        return self._text("markdown", path)

    def to_csv(self, path: str | Path | None = None) -> str:
        """CSV at full precision, also written to a file if one is given; raises ConfigError if that fails."""
        return self._text("csv", path)

    def _text(self, format: str, path: str | Path | None) -> str:
        text = self.to_bytes(format)
        if path is not None:
            written(Path(path), text)
        return text.decode()

    def to_bytes(self, format: str) -> bytes:
        """The bytes of a file: csv, markdown, latex, json or parquet.

        Raises:
            ParameterError: an unknown format, or Parquet without its extra.
        """
        return rendered(self._store, self._selected, format, self._layout)


def written(path: Path, content: bytes) -> Path:
    """Write a file.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        write_file(path, content)
    except OSError as error:
        raise ConfigError(not_written(path, error, "write to another file")) from None
    return path


def _cell(value: object) -> str:
    return escape(str(value)).replace(_BEST, "<b>").replace(_END, "</b>")
