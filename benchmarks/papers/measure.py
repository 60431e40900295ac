"""What the papers' tables and figures show, taken from a results folder.

Beside the columns of FedGuard's own table a paper may want: the best model of a run instead of the last, the
accuracy lost to an attack under the same defense, and the scores of honest and malicious clients.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fedguard.evaluation.results.frame import MEANS, intervals, run_frame
from fedguard.evaluation.results.store import Store

#: Metrics of the papers: column of the frame, factor, offset, decimals.
METRICS = {
    "error": ("tacc", -1.0, 1.0, 2),
    "best error": ("best_tacc", -1.0, 1.0, 2),
    "TACC": ("tacc", 100.0, 0.0, 2),
    "best TACC": ("best_tacc", 100.0, 0.0, 2),
    "ASR": ("asr", 100.0, 0.0, 2),
    "DACC": ("dacc", 100.0, 0.0, 2),
    "FPR": ("fpr", 100.0, 0.0, 2),
    "FNR": ("fnr", 100.0, 0.0, 2),
    "ADACC": ("adacc", 100.0, 0.0, 2),
    "AFPR": ("afpr", 100.0, 0.0, 2),
    "AFNR": ("afnr", 100.0, 0.0, 2),
    "AAR": ("aar", 1.0, 0.0, 2),
    "AOI": ("aoi", 1.0, 0.0, 2),
    "loss": ("loss", 1.0, 0.0, 3),
    "s a round": ("round_seconds", 1.0, 0.0, 1),
    "detector s": ("detector_seconds", 1.0, 0.0, 2),
    "sent kB": ("sent_bytes", 1e-3, 0.0, 0),
    "lost": ("accuracy_lost", 100.0, 0.0, 1),
    "reduction": ("reduction", 100.0, 0.0, 1),
    "benign score": ("benign_score", 1.0, 0.0, 2),
    "benign score, std": ("benign_score_std", 1.0, 0.0, 2),
    "malicious score": ("malicious_score", 1.0, 0.0, 2),
    "malicious score, std": ("malicious_score_std", 1.0, 0.0, 2),
}
_SCORES = [f"{who}_score{part}" for who in ("benign", "malicious") for part in ("", "_std")]
_MEASURED = [*MEANS, "best_tacc", "reduction", "round_seconds", *_SCORES]
#: The most rows that a figure over rounds becomes in a table.
ROWS = 10


class Entry(NamedTuple):
    """One number of a published table, and ours."""

    table: str
    row: str
    column: str
    metric: str
    published: float
    measured: float
    interval: float
    seeds: int

    def text(self) -> str:
        """published / measured ± interval (difference); – where there is none."""
        digits = METRICS[self.metric][3]
        published = "–" if math.isnan(self.published) else f"{self.published:.{digits}f}"
        if math.isnan(self.measured):
            return f"{published} / –"
        interval = "" if math.isnan(self.interval) else f" ± {self.interval:.{digits}f}"
        difference = self.measured - self.published
        change = "" if math.isnan(difference) else f" ({difference:+.{digits}f})"
        return f"{published} / {self.measured:.{digits}f}{interval}{change}"


class Value(NamedTuple):
    """A mean over seeds; NaN and no seeds if nothing has been run."""

    mean: float = math.nan
    interval: float = math.nan
    seeds: int = 0


class Measured:
    """Means over seeds by point of the grid, attack and defense.

    Args:
        stores: of a results folder, or of several with different runs.

    Raises:
        ValueError: two folders have a run in common.
    """

    def __init__(self, *stores: Store) -> None:
        self.stores = stores
        runs = pd.concat([_runs(store) for store in stores], ignore_index=True)
        if runs.duplicated(["point", "attack", "defense", "seed"]).any():
            raise ValueError("the results folders have runs in common; leave one of them out")
        groups = runs.groupby(["point", "attack", "defense"], sort=False)
        self.frame = (
            groups[_MEASURED].mean().join([intervals(groups, _MEASURED), groups["seed"].count().rename("n")])
        )
        #: The points of the grid that have been run, as text and as what they set.
        points = pd.concat([store.table("runs")["point"] for store in stores])
        self.points = dict(zip(runs["point"], map(json.loads, points), strict=True))

    def value(self, metric: str, attack: str, defense: str, point: str = "") -> Value:
        """A metric of the papers."""
        name, factor, offset, _ = METRICS[metric]
        if (point, attack, defense) not in self.frame.index:
            return Value()
        found = self.frame.loc[point, attack, defense]
        return Value(
            factor * float(found[name]) + offset, abs(factor) * float(found[f"{name}_ci"]), int(found["n"])
        )

    def worst(self, metric: str, attacks: list[str], defense: str) -> Value:
        """The largest value over several attacks; a maximum has no interval."""
        found = [v for a in attacks if not math.isnan((v := self.value(metric, a, defense)).mean)]
        return max(found, default=Value())._replace(interval=math.nan)

    def curve(self, x: str, metric: str, attack: str, defense: str) -> dict[Any, Value]:
        """A line of a figure: x → value; x is a key path of the grid, or "round" (accuracies only)."""
        if x != "round":
            line = {at[x]: self.value(metric, attack, defense, point) for point, at in self.points.items()}
            return {at: line[at] for at in sorted(line) if line[at].seeds}
        column, factor, offset, _ = METRICS[metric]
        parts, count = [], 0
        for store in self.stores:
            runs = store.table("runs").query("attack == @attack and defense == @defense")
            rounds = store.table("rounds")
            parts.append(rounds[rounds["run"].isin(runs["run"])])
            count += len(runs)
        groups = pd.concat(parts).dropna(subset=[column]).groupby("round")  # some rounds are not tested
        width = intervals(groups, [column])[f"{column}_ci"]
        return {
            int(index) + 1: Value(factor * mean + offset, abs(factor) * width[index], count)
            for index, mean in groups[column].mean().items()
        }

    def curves(self, figure: dict[str, Any], panel: str) -> dict[str, dict[Any, Value]]:
        """The lines of a panel: label → x → value.

        Lines named in the figure's ``constant`` do not depend on x: they are run once and hold everywhere.
        """
        lines = figure["panels"][panel]
        curves = {label: self.curve(figure["x"], figure["metric"], *line) for label, line in lines.items()}
        everywhere = sorted({at for curve in curves.values() for at in curve})
        for label in figure.get("constant", []):
            value = next(iter(curves[label].values()), Value())
            curves[label] = dict.fromkeys(everywhere, value)
        return curves


def _runs(store: Store) -> pd.DataFrame:
    """One row per run with everything that a paper may ask for."""
    runs = run_frame(store)
    runs["best_tacc"] = runs["run"].map(store.table("rounds").groupby("run")["tacc"].max())
    clean = runs[runs["attack"] == "none"].set_index(["point", "defense", "seed"])["best_tacc"]
    own = pd.MultiIndex.from_frame(runs[["point", "defense", "seed"]])
    total = store.table("timings").query("part == 'total'").set_index("run")["seconds"]
    runs["round_seconds"] = runs["run"].map(total) / runs["rounds"]
    runs["reduction"] = clean.reindex(own).to_numpy() - runs["best_tacc"]
    return runs.join(_scores(store), on="run")


def _scores(store: Store) -> pd.DataFrame:
    """Mean and standard deviation of honest and malicious clients' scores in each run."""
    query = (
        "SELECT run, malicious, AVG(score) AS mean, AVG(score * score) AS square FROM clients "
        "WHERE participated AND score IS NOT NULL GROUP BY run, malicious"
    )
    with closing(sqlite3.connect(store.path)) as db:
        found = pd.read_sql(query, db)
    parts = []
    for truth, who in enumerate(("benign", "malicious")):
        part = found[found["malicious"] == truth].set_index("run")
        spread = np.sqrt((part["square"] - part["mean"] ** 2).clip(lower=0))
        parts.append(pd.DataFrame({f"{who}_score": part["mean"], f"{who}_score_std": spread}))
    return pd.concat(parts, axis=1).astype(float)


def entries(published: dict[str, Any], measured: Measured) -> Iterator[Entry]:
    """Every number of the published tables, and every point of the figures, with what was measured."""
    for table in published.get("tables", []):
        for row, column, attack, defense, metric, number in table_cells(table):
            find = measured.worst if isinstance(attack, list) else measured.value
            value = find(metric, attack, defense)
            yield Entry(table["title"], row, column, metric, math.nan if number is None else number, *value)
    for figure in published.get("figures", []):
        for panel in figure["panels"]:
            curves = measured.curves(figure, panel)
            for at in _shown(sorted({at for curve in curves.values() for at in curve})):
                for label, curve in curves.items():
                    value = curve.get(at, Value())
                    yield Entry(panel, str(at), label, figure["metric"], math.nan, *value)


def table_cells(table: dict[str, Any]) -> Iterator[tuple[str, str, Any, str, str, float | None]]:
    """(row, column, attack or attacks, defense, metric, published) for every number of a table.

    A list of attacks in the place of one asks for the largest value over them.
    """
    columns = table["columns"]
    for label, row in table["rows"].items():
        parts = [row.get(key, table.get(key)) for key in ("attack", "defense", "metric")]
        parts = [part if isinstance(part, list) else [part] * len(columns) for part in parts]
        numbers = row.get("published", [None] * len(columns))
        for column, attack, defense, metric, number in zip(columns, *parts, numbers, strict=True):
            yield label, str(column), attack, defense, metric, number


def _shown(at: list[Any]) -> list[Any]:
    """All of them, or about ``ROWS``, evenly spread, with the last."""
    step = -(-len(at) // ROWS) if at else 1
    return at[::-1][::step][::-1]
