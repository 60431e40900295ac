"""How numbers are shown (titles, percent, digits, ±, the best in bold), and the tables on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...core.errors import ParameterError
from ...core.params import nearest
from .names import display_all

if TYPE_CHECKING:
    import pandas as pd


Mark = Literal["best", "second"]
#: By row of the frame and name of the column, see :func:`.marks.marks`.
Marks = Mapping[tuple[Any, str], Mark]


@dataclass(frozen=True)
class Column:
    """How a number is shown.

    Attributes:
        name: its column in the frame.
        title: its heading.
        scale: the factor it is multiplied by (100 for percentages).
        best: "max", "min", or empty if neither is better.
        digits: how many decimals are shown.
        chance: the value of tossing a coin for every client; a best value is better than that.
    """

    name: str
    title: str
    scale: float
    best: str
    digits: int
    chance: float | None = None

    @property
    def interval(self) -> str:
        """The frame's column with the half width of the confidence interval."""
        return f"{self.name}_ci"

    @property
    def bounds(self) -> tuple[float, float]:
        """The smallest and the largest possible value."""
        if self.name in ("accuracy_lost", "leak_ssim", "noise_ssim"):
            return -1.0, 1.0
        return 0.0, 1.0 if self.scale == 100 or "AUROC" in self.title or self.name == "ap" else math.inf

    def fails(self, best: float) -> bool:
        """Whether the best value is no better than chance."""
        if self.chance is None:
            return False
        return best <= self.chance if self.best == "max" else best >= self.chance


COLUMNS = {
    column.name: column
    for column in (
        Column("dacc", "DACC %", 100, "max", 1, 0.5),
        Column("fpr", "FPR %", 100, "min", 1, 0.5),
        Column("fnr", "FNR %", 100, "min", 1, 0.5),
        Column("aar", "AAR", 1, "min", 2),
        Column("tacc", "TACC %", 100, "max", 1),
        Column("asr", "ASR %", 100, "min", 1),
        Column("auroc", "AUROC", 1, "max", 3, 0.5),
        Column("detector_share", "Det. time %", 100, "min", 1),
        Column("accuracy_lost", "Lost %", 100, "min", 1),
        Column("adacc", "ADACC %", 100, "max", 1, 0.5),
        Column("afpr", "AFPR %", 100, "min", 1, 0.5),
        Column("afnr", "AFNR %", 100, "min", 1, 0.5),
        Column("pooled_dacc", "pooled DACC %", 100, "max", 1, 0.5),
        Column("pooled_fpr", "pooled FPR %", 100, "min", 1, 0.5),
        Column("pooled_fnr", "pooled FNR %", 100, "min", 1, 0.5),
        Column("tp", "TP", 1, "", 0),
        Column("fp", "FP", 1, "", 0),
        Column("tn", "TN", 1, "", 0),
        Column("fn", "FN", 1, "", 0),
        Column("dacc_active", "DACC active %", 100, "max", 1, 0.5),
        Column("fnr_active", "FNR active %", 100, "min", 1, 0.5),
        Column("auroc_active", "AUROC active", 1, "max", 3, 0.5),
        Column("aar_active", "AAR active", 1, "min", 2),
        Column("harm", "Harm %", 100, "", 1),
        Column("fnr_harm", "FNR by harm %", 100, "min", 1, 0.5),
        Column("tacc_best", "Best TACC %", 100, "max", 1),
        Column("ap", "AP", 1, "max", 3),
        Column("tpr_at_1", "TPR at 1 % FPR %", 100, "max", 1),
        Column("rounds_to_detection", "Rounds to detection", 1, "min", 1),
        Column("caught", "Caught %", 100, "max", 1),
        Column("benign_excluded", "Benign excluded", 1, "min", 2),
        Column("fpr_low_skew", "FPR low skew %", 100, "min", 1),
        Column("fpr_mid_skew", "FPR mid skew %", 100, "min", 1),
        Column("fpr_high_skew", "FPR high skew %", 100, "min", 1),
        Column("aoi", "AOI", 1, "min", 1),
        Column("detector_seconds", "Det. time s", 1, "min", 2),
        Column("peak_memory", "Peak MiB", 2**-20, "min", 0),
        Column("state_bytes", "State kB", 1e-3, "min", 1),
        Column("sent_bytes", "Sent kB", 1e-3, "min", 1),
        Column("loss", "Loss", 1, "min", 4),
        Column("leak_psnr", "Leak PSNR dB", 1, "min", 1),
        Column("leak_ssim", "Leak SSIM", 1, "min", 3),
        Column("leak_labels", "Leak labels %", 100, "min", 1),
        Column("noise_psnr", "Noise PSNR dB", 1, "", 1),
        Column("noise_ssim", "Noise SSIM", 1, "", 3),
        Column("frechet", "Fréchet distance", 1, "min", 1),
        Column("diverged", "Diverged", 1, "", 0),
    )
}
UNDEFINED = "–"
#: What a heading says about modes other than closed.
_MODES = {"shadow": "shadow mode", "recorded": "recorded rounds, shadow mode"}
#: The columns shown by default.
SHOWN = ("dacc", "fpr", "fnr", "aar", "tacc", "asr", "auroc", "detector_share")
#: Those that are shown beside them under a passive attack, and of a generative model.
SHOWN_IF_ANY = ("frechet", "leak_psnr", "noise_psnr", "leak_ssim", "leak_labels")

FOOTNOTE = """\
Mean over seeds (± 95 % confidence interval, or [its ends] where a bound cuts it; a \
narrow terminal shows none: `fedguard export`). * the best defense, if it differs from the \
next one (paired test over seeds, 5 % in all by Holm, six seeds or more if all differ by the \
same; one seed: by the digits shown) and is better than chance. – undefined, ~ average over \
rounds (ADACC, AFPR, AFNR) where the policy does not ban.
What the columns mean: `fedguard list metrics`, docs/glossary.md."""


def columns_named(names: Sequence[str]) -> list[Column]:
    """Columns by name, in any case; "all" means every column.

    Raises:
        ParameterError: there is no such column.
    """
    wanted = [name.lower() for name in names]
    wanted = list(COLUMNS) if wanted == ["all"] else wanted
    for name in wanted:
        if name not in COLUMNS:
            raise ParameterError(f"no column {name!r}{nearest(name, COLUMNS)} (known: {', '.join(COLUMNS)})")
    return [COLUMNS[name] for name in wanted]


def defined(frame: pd.DataFrame, columns: Sequence[Column]) -> list[Column]:
    """The columns with at least one value; the default ones with what leaked, and the loss."""
    if tuple(column.name for column in columns) == SHOWN:
        loss = ("loss",) if frame["tacc"].isna().all() else ()  # regression
        columns = [*columns, *(COLUMNS[name] for name in (*loss, *SHOWN_IF_ANY))]
    return [c for c in columns if frame[c.name].notna().any()]


def show(value: Any, column: Column, interval: Any = math.nan) -> str:
    """A number as shown in a table, with its interval if it has one; – if undefined.

    An interval that would leave the possible values is given by its ends, cut there: 76.7 [6.1, 100.0].
    """
    if value is None or math.isnan(value):
        return UNDEFINED
    text = _digits(value, column)
    if interval is None or math.isnan(interval):
        return text
    low, high = column.bounds
    if low <= value - interval and value + interval <= high:
        return f"{text} ± {_digits(interval, column)}"
    ends = max(low, value - interval), min(high, value + interval)
    return f"{text} [{', '.join(_digits(end, column) for end in ends)}]"


def _digits(value: float, column: Column) -> str:
    return f"{value * column.scale:.{column.digits}f}"


def shown(row: Any, column: Column) -> str:
    """The number of a frame's row as shown in a table."""
    return show(row[column.name], column, row.get(column.interval, math.nan))


def attack_tables(
    frame: pd.DataFrame,
    names: Sequence[str] = SHOWN,
    own: Mapping[str, str] | None = None,
    width: int = 0,
    found: Marks | None = None,
) -> list[tuple[str, Table]]:
    """A heading and a rich table for every attack, with one row per defense.

    A table that is too wide leaves out intervals; if that is not enough, its columns go into several tables,
    of which the first has the heading.

    Args:
        frame: of :func:`fedguard.evaluation.results.frame.read_results`.
        names: of the metrics.
        own: the suite's own names of attacks and defenses.
        width: of the terminal in characters; 0 for any.
        found: which numbers are marked.
    """
    tables = []
    columns = columns_named(names)
    called = {key: display_all(frame[key].unique(), own) for key in ("attack", "defense")}
    for (point, mode, attack), group in frame.groupby(["point", "mode", "attack"], sort=False):
        first = group.iloc[0]
        where = "; ".join(text for text in (str(point), _MODES.get(str(mode), "")) if text)
        unknown = first["malicious"] is None or math.isnan(first["malicious"])
        known = "an unknown number" if unknown else str(int(first["malicious"]))
        heading = (
            f"{where}{': ' if where else ''}attack: {called['attack'][str(attack)]}   ({known} of "
            f"{int(first['clients'])} clients malicious, "
            f"defenses are told {int(first['assumed_malicious'])})"
        )
        used = defined(group, columns)
        rows = [(_row_name(row, called["defense"]), row) for _, row in group.iterrows()]
        parts = _fitting(rows, used, found or {}, width)
        tables += [(heading, parts[0]), *(("", part) for part in parts[1:])]
    return tables


def _row_name(row: Any, called: Mapping[str, str]) -> str:
    beside = mark(row)
    return f"{called[str(row['defense'])]}{f'  ({beside})' if beside else ''}"


def _fitting(
    rows: Sequence[tuple[str, Any]], columns: Sequence[Column], found: Marks, width: int
) -> list[Table]:
    """One table, or several if no other way fits the width."""
    for intervals, lines in ((True, True), (True, False), (False, False)):
        table = _table(rows, columns, found, intervals, lines)
        if not width or least_width(table) <= width:
            return [table]
    for count in range(len(columns) - 1, 0, -1):
        parts = [columns[i : i + count] for i in range(0, len(columns), count)]
        tables = [_table(rows, part, found) for part in parts]
        if max(map(least_width, tables)) <= width:
            return tables
    return [_table(rows, [column], found) for column in columns] or [table]


def _table(
    rows: Sequence[tuple[str, Any]],
    columns: Sequence[Column],
    found: Marks,
    intervals: bool = False,
    lines: bool = False,
) -> Table:
    """A table, with lines around its cells or, narrower, without; then headings take several lines too."""
    table = Table() if lines else Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("defense")
    cells = [[_cell(row, column, found, intervals) for column in columns] for _, row in rows]
    for column, values in zip(columns, zip(*cells, strict=True), strict=True):
        words = [column.title if lines else column.title[:7], *column.title.split()]
        longest = max(len(text) for text in (*words, *values))
        table.add_column(column.title, justify="right", width=longest)
    for (name, _), line in zip(rows, cells, strict=True):
        table.add_row(name, *line)
    return table


def least_width(table: Table) -> int:
    """The width at which no number and no word breaks; headings and names may break at spaces."""
    console = Console(width=10_000, markup=False, emoji=False)
    return table.__rich_measure__(console, console.options).minimum


def mark(row: Any) -> str:
    """What is said beside a row's name if runs failed or diverged."""
    marks = [f"{int(row['failed'])} failed"] if row["failed"] else []
    if not math.isnan(row["diverged"]):
        marks.append(f"diverged in round {int(row['diverged'])}")
    return ", ".join(marks)


def _cell(row: Any, column: Column, found: Marks, intervals: bool) -> Text:
    text = shown(row, column) if intervals else show(row[column.name], column)
    text = text.replace(" ± ", "±")
    if column.name in ("dacc", "fpr", "fnr") and text != UNDEFINED and row["basis"] == "rounds":
        text = f"~{text}"
    if found.get((row.name, column.name)) == "best":
        return Text(f"{text}*", style="bold green")
    return Text(f"{text} ")
