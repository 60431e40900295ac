"""The detection-metrics table: one row per attack and defence, for people and for papers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from ..errors import ResultsError
from .store import Store

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """How a number is shown.

    Attributes:
        name: its column in the frame.
        title: its heading.
        scale: what it is multiplied by (100 for percentages).
        best: "max" or "min".
        digits: decimals shown.
    """

    name: str
    title: str
    scale: float
    best: str
    digits: int


COLUMNS = (
    Column("dacc", "DACC %", 100, "max", 1),
    Column("fpr", "FPR %", 100, "min", 1),
    Column("fnr", "FNR %", 100, "min", 1),
    Column("aar", "AAR", 1, "min", 2),
    Column("tacc", "TACC %", 100, "max", 1),
    Column("asr", "ASR %", 100, "min", 1),
    Column("auroc", "AUROC", 1, "max", 3),
    Column("detector_share", "Det. time %", 100, "min", 1),
)
#: What a heading says about runs that are no closed loop.
_MODES = {"shadow": "shadow mode", "recorded": "recorded rounds, shadow mode"}
_COUNTS = ["tp", "fp", "tn", "fn"]
_MEANS = ["dacc", "fpr", "fnr", "aar", "auroc", "tacc", "asr", "detector_share"]

FOOTNOTE = """\
Mean over seeds; * best of its column; – undefined. DACC, FPR, FNR come from the labels at the end of
the run where the policy bans, and are averages over rounds (ADACC, AFPR, AFNR) where marked ~.
AAR: rounds in which a malicious client was aggregated. Det. time: the detector's share of the time of
training, detection and aggregation."""


def metrics_frame(store: Store) -> pd.DataFrame:
    """One row per point of the grid, mode, attack and defence: means over seeds, counts pooled over them.

    Rates are fractions. Columns: point (of the grid, as text), mode, attack, defense, seeds, failed,
    clients, malicious, assumed_malicious, rounds, basis, the means dacc … detector_share, and the counts
    tp, fp, tn, fn.

    Raises:
        ResultsError: the store holds no run.
    """
    runs = store.table("runs")
    if runs.empty:
        raise ResultsError(f"{store.folder} holds no finished run yet")
    seconds = store.table("timings").pivot(index="run", columns="part", values="seconds")
    if not seconds.empty:
        busy = seconds[["training", "detectors", "policy", "aggregator"]].sum(axis=1)
        share = (seconds["detectors"] / busy).rename("detector_share")
        runs = runs.merge(share, left_on="run", right_index=True, how="left")
        runs.loc[(runs["basis"] == "") | (runs["mode"] == "recorded"), "detector_share"] = math.nan
    else:
        runs["detector_share"] = math.nan
    runs["point"] = [_words(json.loads(text)) for text in runs["point"]]
    groups = runs.groupby(["point", "mode", "attack", "defense"], sort=False)
    shared = groups[["clients", "malicious", "assumed_malicious", "rounds", "basis"]].first()
    seeds = groups["seed"].count().rename("seeds")
    failed = groups["status"].apply(lambda s: int((s == "failed").sum())).rename("failed")
    means = groups[_MEANS].mean()
    counts = groups[_COUNTS].sum(min_count=1)
    frame: pd.DataFrame = shared.join([seeds, failed, means, counts]).reset_index()
    return frame


def _words(point: dict[str, Any]) -> str:
    """A point of the grid as text, empty without a grid."""
    return ", ".join(f"{path} = {value}" for path, value in point.items())


def best_values(group: pd.DataFrame) -> dict[str, float]:
    """The best value of every column in one attack's rows; columns with nothing to choose are absent."""
    best = {}
    for column in COLUMNS:
        values = group[column.name].dropna()
        if len(values) > 1:
            best[column.name] = float(values.max() if column.best == "max" else values.min())
    return best


def show(value: Any, column: Column) -> str:
    """A number as it appears in a table; – if undefined."""
    if value is None or math.isnan(value):
        return "–"
    return f"{value * column.scale:.{column.digits}f}"


def is_best(value: Any, column: Column, best: dict[str, float]) -> bool:
    """Whether a value is the best of its column, as far as can be seen at the digits shown."""
    target = best.get(column.name)
    return target is not None and show(value, column) == show(target, column)


def attack_tables(frame: pd.DataFrame) -> list[tuple[str, Table]]:
    """A heading and a rich table for every attack."""
    tables = []
    for (point, mode, attack), group in frame.groupby(["point", "mode", "attack"], sort=False):
        first = group.iloc[0]
        where = "; ".join(text for text in (str(point), _MODES.get(str(mode), "")) if text)
        unknown = first["malicious"] is None or math.isnan(first["malicious"])
        known = "an unknown number" if unknown else str(int(first["malicious"]))
        heading = (
            f"{where}{': ' if where else ''}attack: {attack}   ({known} of "
            f"{int(first['clients'])} clients malicious, "
            f"defences are told {int(first['assumed_malicious'])})"
        )
        used = [c for c in COLUMNS if group[c.name].notna().any()]
        table = Table()
        table.add_column("defence")
        for column in used:
            table.add_column(column.title, justify="right")
        best = best_values(group)
        for _, row in group.iterrows():
            cells = [_cell(row, column, best) for column in used]
            mark = f"  ({int(row['failed'])} failed)" if row["failed"] else ""
            table.add_row(f"{row['defense']}{mark}", *cells)
        tables.append((heading, table))
    return tables


def _cell(row: Any, column: Column, best: dict[str, float]) -> Text:
    text = show(row[column.name], column)
    if column.name in ("dacc", "fpr", "fnr") and text != "–" and row["basis"] == "rounds":
        text = f"~{text}"
    if is_best(row[column.name], column, best):
        return Text(f"{text}*", style="bold green")
    return Text(f"{text} ")
