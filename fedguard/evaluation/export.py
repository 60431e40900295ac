"""The detection-metrics table as CSV, Markdown, LaTeX or JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ParameterError
from .store import Store
from .tables import COLUMNS, best_values, is_best, metrics_frame, show

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("csv", "markdown", "latex", "json")


def export(store: Store, format: str) -> str:
    """The table of a results folder as text.

    CSV and JSON hold numbers at full precision (rates as fractions, counts beside them, empty or null if
    undefined); Markdown and LaTeX (booktabs) are rounded, in percent, with the best value of every
    attack in bold.

    Raises:
        ParameterError: unknown format.
        ResultsError: the folder holds no finished run.
    """
    frame = metrics_frame(store)
    if format == "csv":
        return str(frame.to_csv(index=False))
    if format == "json":
        return str(frame.to_json(orient="records", indent=2)) + "\n"
    if format == "markdown":
        return str(_rounded(frame, "**{}**".format).to_markdown(index=False, disable_numparse=True)) + "\n"
    if format == "latex":
        return _latex(frame)
    raise ParameterError(f"unknown format {format!r}; use {', '.join(FORMATS)}")


def _rounded(frame: pd.DataFrame, bold: Any) -> pd.DataFrame:
    import pandas as pd

    used = [c for c in COLUMNS if frame[c.name].notna().any()]
    rows = []
    extra = [name for name in ("point", "mode") if frame[name].nunique() > 1]
    for (_, _, attack), group in frame.groupby(["point", "mode", "attack"], sort=False):
        best = best_values(group)
        for _, row in group.iterrows():
            cells = {
                **{name: row[name] for name in extra},
                "attack": attack,
                "defence": row["defense"],
                "basis": row["basis"] or "–",
            }
            for column in used:
                text = show(row[column.name], column)
                cells[column.title] = bold(text) if is_best(row[column.name], column, best) else text
            rows.append(cells)
    return pd.DataFrame(rows)


def _latex(frame: pd.DataFrame) -> str:
    table = _rounded(frame, lambda text: f"\\textbf{{{text}}}")
    words = [name for name in ("point", "mode", "attack", "defence") if name in table]
    escaped: Any = dict.fromkeys(words, _escape)
    style = table.rename(columns=_escape).style.hide(axis="index").format(escaped)
    names = len(words) + 1
    return str(style.to_latex(hrules=True, column_format="l" * names + "r" * (len(table.columns) - names)))


_LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {sign: f"\\{sign}" for sign in "_%&#${}"}
)


def _escape(text: str) -> str:
    return text.translate(_LATEX)
