"""Tables for papers from the frame of results: rows, columns, the best in bold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...core.errors import ParameterError
from ...core.params import nearest
from ..terminal import plain
from .frame import BY, metrics_frame
from .store import Store
from .tables import SHOWN, UNDEFINED, Marks, columns_named, defined, show, shown

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Float:
    """What surrounds the tabular.

    Attributes:
        caption: the caption; the suite's name and the metrics if empty.
        label: for ``\\ref``; made of the suite's name if empty.
        wide: ``table*``, across both columns of a two-column venue, in footnote size.
    """

    caption: str = ""
    label: str = ""
    wide: bool = False


@dataclass(frozen=True)
class Layout:
    """The layout of a results table.

    Attributes:
        rows: the keys of the rows: attack, defense, mode, seed, or key paths of settings. Other settings that
            vary become keys too: only seeds are averaged.
        columns: the keys of the columns.
        values: the metrics shown; names of :data:`fedguard.evaluation.results.tables.COLUMNS`, or "all".
        where: keeps only rows with these values: path → values.
        joined: shows all values in one cell, as in "85.9/2.4".
        attacked: leaves out runs without an attack.
        detecting: leaves out defenses without a detector.
        intervals: shows the intervals beside the means.
        float: caption, label and width of the LaTeX float.
    """

    rows: tuple[str, ...] = BY
    columns: tuple[str, ...] = ()
    values: tuple[str, ...] = SHOWN
    where: Mapping[str, Sequence[str]] | None = None
    joined: bool = False
    attacked: bool = False
    detecting: bool = False
    intervals: bool = True
    float: Float = Float()


#: The layouts of published tables, and of a two-column venue.
PRESETS = {
    # Xie et al., FedREDefense, ICML 2024, Table 1.
    "fedredefense_table1": Layout(
        rows=("attack", "defense"),
        columns=("data",),
        values=("dacc", "fpr", "fnr", "aar"),
        attacked=True,
        detecting=True,
    ),
    # The same, Table 2: TACC (/ASR).
    "fedredefense_table2": Layout(
        rows=("data", "attack"), columns=("defense",), values=("tacc", "asr"), joined=True, intervals=False
    ),
    # Fang et al., USENIX Security 2020, Table 2; accuracy where the paper has its complement, the error.
    "fang_table2": Layout(rows=("data", "defense"), columns=("attack",), values=("tacc",), intervals=False),
    # Shejwalkar and Houmansadr, NDSS 2021: the accuracy that an attack costs under each rule.
    "ndss_reduction": Layout(
        rows=("data", "attack"),
        columns=("defense",),
        values=("accuracy_lost",),
        attacked=True,
        intervals=False,
    ),
    # FedMLSecurity (2023) and FedSecurity (2024), experiments 1 to 7: the accuracy at the curves' ends.
    "fedsecurity": Layout(rows=("data", "attack"), columns=("defense",), values=("tacc",), intervals=False),
    # FedSecurity (2024), experiments 8 and 9.
    "fedsecurity_exp8": Layout(
        rows=("attack", "defense"), values=("dacc", "fpr", "fnr", "aar", "tacc", "asr")
    ),
    # Across both columns of a two-column venue: detection and false alarms of every defense.
    "two_columns": Layout(
        rows=("attack",),
        columns=("defense",),
        values=("dacc", "fpr"),
        attacked=True,
        detecting=True,
        joined=True,
        intervals=False,
        float=Float(wide=True),
    ),
}


def layout_of(preset: str, pivot: str, columns: str, where: Mapping[str, Any]) -> Layout:
    """A layout from command-line options; an empty option means the default.

    Args:
        preset: a name of :data:`PRESETS`.
        pivot: "rows,columns": two settings.
        columns: comma-separated metrics, or "all".
        where: path → value or values.

    Raises:
        ParameterError: there is no such preset, or the pivot is not two settings.
    """
    if preset and preset not in PRESETS:
        raise ParameterError(f"no preset {preset!r}{nearest(preset, PRESETS)} (known: {', '.join(PRESETS)})")
    layout = PRESETS.get(preset, Layout())
    changes: dict[str, Any] = {}
    if pivot:
        settings = [name.strip().replace("defense", "defense") for name in pivot.split(",")]
        if len(settings) != 2 or not all(settings):
            raise ParameterError(f"--pivot takes two settings, ROWS,COLUMNS; got {pivot!r}")
        changes.update(rows=(settings[0],), columns=(settings[1],))
    if columns:
        changes["values"] = tuple(name.strip() for name in columns.split(","))
    if where:
        changes["where"] = {k: v if isinstance(v, list) else [v] for k, v in where.items()}
    return replace(layout, **changes)


def selected(store: Store, layout: Layout) -> pd.DataFrame:
    """The frame that the layout shows, with one row per cell of its table.

    Raises:
        ResultsError: the store holds no run.
        ParameterError: there is no such setting, or nothing is left.
    """
    where = dict(layout.where or {})
    keys = list(dict.fromkeys([*layout.rows, *layout.columns, *where]))
    frame = metrics_frame(store, keys)
    for path, values in where.items():
        frame = frame[frame[path].astype(str).isin([str(value) for value in values])]
    if layout.attacked:
        frame = frame[frame["attacked"]]
    if layout.detecting:
        frame = frame[frame["basis"] != ""]
    if frame.empty:
        raise ParameterError(f"{store.folder}: no run is left to show; see `fedguard export -f csv`")
    return frame


def words(frame: pd.DataFrame, layout: Layout, bold: Callable[[str], str], found: Marks) -> pd.DataFrame:
    """The table as text, with the numbers that are marked as best in bold."""
    used = defined(frame, columns_named(layout.values))

    def cells(row: pd.Series) -> dict[str, str]:
        texts = {c.title: shown(row, c) if layout.intervals else show(row[c.name], c) for c in used}
        for c in used:
            if found.get((row.name, c.name)) == "best":
                texts[c.title] = bold(texts[c.title])
        if layout.joined:
            return {"/".join(texts): "/".join(t for t in texts.values() if t != UNDEFINED) or UNDEFINED}
        return texts if layout.columns else {"basis": row["basis"] or UNDEFINED, **texts}

    table = _arranged(frame, layout, cells).rename(columns=plain)
    for key in {*frame.attrs["keys"], "basis"} & {*table}:
        table[key] = [plain(value) if isinstance(value, str) else value for value in table[key]]
    return table


def numbers(frame: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The table as numbers at full precision, with intervals; the whole frame for the default layout."""
    names = [n for c in columns_named(layout.values) for n in (c.name, c.interval) if n in frame]
    if not layout.columns:
        about = list(frame.columns)[: list(frame.columns).index("failed") + 1]
        return frame if layout.values == SHOWN else frame[[*about, *names]]
    used = [name for name in names if frame[name].notna().any()]
    return _arranged(frame, layout, lambda row: {name: row[name] for name in used})


def _arranged(frame: pd.DataFrame, layout: Layout, cells: Callable[[Any], dict[str, Any]]) -> pd.DataFrame:
    """One row per combination of the keys outside ``layout.columns``, in the suite's order.

    Keys that never vary are not shown, except attack and defense.
    """
    import pandas as pd

    table: dict[tuple[Any, ...], dict[str, Any]] = {}
    down = [key for key in frame.attrs["keys"] if key not in layout.columns]
    down = [key for key in down if key in ("attack", "defense") or frame[key].nunique(dropna=False) > 1]
    for _, row in frame.iterrows():
        line = table.setdefault(tuple(row[key] for key in down), {})
        across = " ".join(str(row[key]) for key in layout.columns)
        found = cells(row)
        for title, value in found.items():
            line[f"{across} {title}".strip() if len(found) > 1 else across or title] = value
    titles = ["defense" if key == "defense" else key for key in down]
    lines = [{**dict(zip(titles, line, strict=True)), **found} for line, found in table.items()]
    return pd.DataFrame(lines)
