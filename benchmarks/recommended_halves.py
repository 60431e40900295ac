"""The two halves of ``recommended_vs_all``: attacks that limits were chosen with, and others.

fedguard evaluate recommended_vs_all && python benchmarks/recommended_halves.py results/recommended_vs_all

Every client of every attacked round counts the same, whatever the policy: out (excluded or banned) or not. So
methods that ban and methods that exclude can be compared. A sleeper counts from its first attack on.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas as pd

CHOSEN_WITH = ("label_flip", "lie", "ipm", "scaling_backdoor")
QUERY = """
SELECT runs.attack, runs.defense, runs.seed, round, clients.malicious, attacking, banned,
       suspect OR banned OR weight = 0 AS "out"
FROM clients JOIN runs USING (run)
WHERE (participated OR banned) AND runs.status = 'done' AND runs.basis IS NOT NULL
"""


def verdicts(folder: Path) -> pd.DataFrame:
    """Who was out, by round, from the first attack of a run on."""
    with closing(sqlite3.connect(folder / "results.sqlite")) as store:
        frame = pd.read_sql(QUERY, store)
    keys = [frame["attack"], frame["seed"]]
    first = frame["round"].where(frame["attacking"] == 1).groupby(keys).transform("min").fillna(0)
    frame = frame[frame["round"] >= first].copy()
    frame["bad"] = (frame["malicious"] == 1) & (frame["attack"] != "none")
    frame["half"] = frame["attack"].map(
        lambda name: "nobody" if name == "none" else "chosen with" if name in CHOSEN_WITH else "never seen"
    )
    return frame


def rates(part: pd.DataFrame) -> pd.Series:
    """DACC, FPR and FNR in percent, over clients and rounds."""
    wrong = part["out"].astype(bool) != part["bad"]
    parts = {"DACC": ~wrong, "FPR": wrong[~part["bad"]], "FNR": wrong[part["bad"]]}
    return pd.Series({name: 100 * values.mean() for name, values in parts.items()})


def main(folder: Path) -> None:
    """Print both tables."""
    frame = verdicts(folder)
    by_attack = frame.groupby(["half", "defense", "attack"], sort=False)[["out", "bad"]].apply(rates)
    means = by_attack.groupby(["half", "defense"]).mean().round(1)
    print(means.unstack("half").swaplevel(axis=1).sort_index(axis=1).to_markdown())
    print()
    print(by_attack.xs("recommended", level="defense").round(1).to_markdown())
    honest = frame[(frame["defense"] == "recommended") & (frame["malicious"] == 0)]
    print(f"\nhonest clients banned by the recommended guard: {_banned(honest)}")


def _banned(honest: pd.DataFrame) -> str:
    ever = honest.groupby(["attack", "seed"], sort=False)[["banned"]].sum()
    ever = ever[ever["banned"] > 0]
    return ", ".join(f"{attack} (seed {seed})" for attack, seed in ever.index) or "none"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
