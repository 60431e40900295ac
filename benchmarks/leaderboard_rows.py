"""What a leaderboard is computed from: one row per attack, skew, share of attackers, seed and detector."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd

from fedguard.evaluation.cells import csv_text
from fedguard.evaluation.metrics import harm, harm_weighted_fnr
from fedguard.evaluation.results.frame import intervals, run_frame
from fedguard.evaluation.results.store import Store

KEYS = ["data", "attack", "beta", "malicious", "seed", "detector"]
RATES = ["dacc", "dacc_active", "fpr", "fnr", "fnr_active", "auroc", "auroc_active", "tpr_at_1"]
#: Counts of client-rounds: all, honest ones flagged, attackers missed while idle and while active.
COUNTS = ["n", "false_positives", "missed_idle", "missed_active"]
COLUMNS = [*KEYS, "status", *RATES, "harm", "tacc", "asr", *COUNTS]
#: Attacks below it cost less than one point of accuracy, and succeed on less than 10 % of the samples.
HARMLESS = 0.1
#: Lowest AUROC (of active attackers) at which a detector sees them, and at which it ranks them well.
SEEN, RANKED = 0.98, 0.90
#: Where DACC is lost, in the order in which a loss is attributed.
LOSSES = ("identical to honest", "harmless", "seen by a detector", "ranked .90–.98", "seen by nobody")


def rows_of(folder: Path) -> pd.DataFrame:
    """The rows of a results folder in shadow mode; failed runs have a status and no numbers.

    ``harm`` is that of the undefended federation that all detectors watched: its accuracy against that of
    the run without an attack, at the same point and seed.
    """
    runs = run_frame(Store(folder), ["partition.beta"])
    settings = [json.loads(text) for text in runs["settings"]]
    frame = pd.DataFrame(
        {
            "data": [one["data"]["name"] for one in settings],
            "attack": runs["attack"],
            "beta": runs["partition.beta"],
            "malicious": [one["malicious"] for one in settings],
            "seed": runs["seed"],
            "detector": runs["defense"],
            "status": runs["status"],
            **{name: runs[name] for name in (*RATES, "tacc", "asr")},
        }
    )
    frame["harm"] = _harm(frame)
    counts = _counts(folder)
    for name in COUNTS:
        frame[name] = runs["run"].map(counts[name])
    return frame[COLUMNS]


def _harm(frame: pd.DataFrame) -> list[float]:
    place = ["data", "beta", "malicious", "seed"]
    clean = frame[frame["attack"] == "none"].groupby(place)["tacc"].first()
    nan = float("nan")
    return [
        nan
        if row["attack"] == "none"
        else harm(clean.get(tuple(row[name] for name in place), nan) - row["tacc"], row["asr"])
        for _, row in frame.iterrows()
    ]


def _counts(folder: Path) -> pd.DataFrame:
    query = """
        SELECT run, COUNT(*) AS n,
            SUM(NOT malicious AND suspect) AS false_positives,
            SUM(malicious AND NOT suspect AND NOT attacking) AS missed_idle,
            SUM(malicious AND NOT suspect AND attacking) AS missed_active
        FROM clients WHERE participated GROUP BY run"""
    with closing(sqlite3.connect(folder / "results.sqlite")) as db:
        return pd.read_sql_query(query, db, index_col="run").astype(float)


def write_rows(rows: pd.DataFrame, path: Path) -> None:
    """As CSV, six significant digits."""
    short = rows.copy()
    for name in rows.select_dtypes("float").columns:
        short[name] = [float(f"{value:.6g}") for value in rows[name]]
    path.write_text(csv_text(short), encoding="utf-8")


def read_rows(path: Path) -> pd.DataFrame:
    """What :func:`write_rows` wrote."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"attack": str, "detector": str})


def standing(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per detector, the highest DACC first: each seed's mean over attacks and points, their mean, and
    the half width of its 95 % interval over seeds (columns ``…_ci``).

    Columns: those of ``RATES``, ``worst`` (lowest AUROC of a run), ``fnr_harm`` (FNR weighted by harm) and
    ``clean`` (FPR with no attack).
    """
    attacked = rows[rows["attack"] != "none"]
    by_seed = attacked.groupby(["detector", "seed"])[RATES].mean()
    weighted = {
        key: harm_weighted_fnr(part["fnr"], part["harm"])
        for key, part in attacked.groupby(["detector", "seed"])
    }
    by_seed["fnr_harm"] = pd.Series(weighted, dtype=float)
    clean = rows[rows["attack"] == "none"].groupby(["detector", "seed"])["fpr"].mean()
    by_seed["clean"] = clean
    names = [*RATES, "fnr_harm", "clean"]
    groups = by_seed.reset_index().groupby("detector")
    found = groups[names].mean().join(intervals(groups, names))
    found["worst"] = attacked.groupby("detector")["auroc"].min()
    return found.sort_values("dacc", ascending=False)


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Where the DACC of each detector is lost: a share of all client-rounds under attack per cause.

    A missed attacker counts, in this order: "identical to honest", if it sent its honest update; "harmless",
    if the attack's harm is below ``HARMLESS``; else by the highest AUROC that any detector of the board has
    in this run. Columns: ``lost`` (1 − DACC), ``LOSSES``, "false positives".
    """
    attacked = rows[(rows["attack"] != "none") & (rows["n"] > 0)].copy()
    best = attacked.groupby(["data", "attack", "beta", "malicious", "seed"])["auroc_active"].transform("max")
    cause = pd.Series(LOSSES[4], index=attacked.index)
    cause[best >= RANKED] = LOSSES[3]
    cause[best >= SEEN] = LOSSES[2]
    cause[attacked["harm"] < HARMLESS] = LOSSES[1]
    total = attacked.groupby("detector")["n"].sum()
    found = pd.DataFrame({LOSSES[0]: attacked.groupby("detector")["missed_idle"].sum()})
    for name in LOSSES[1:]:
        missed = attacked["missed_active"].where(cause == name, 0.0)
        found[name] = missed.groupby(attacked["detector"]).sum()
    found["false positives"] = attacked.groupby("detector")["false_positives"].sum()
    shares = found.div(total, axis=0)
    shares.insert(0, "lost", shares.sum(axis=1))
    return shares.sort_values("lost")
