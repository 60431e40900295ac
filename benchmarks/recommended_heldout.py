"""Tables of the frozen recommended detector on attacks that had no part in choosing it.

python benchmarks/recommended_heldout.py FOLDER … [--csv FILE]    # results of recommended_heldout.yaml
python benchmarks/recommended_heldout.py --closed FOLDER …        # of the same suite with mode=closed
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from leaderboard_rows import losses, rows_of, standing, write_rows

from fedguard.evaluation.results.frame import run_frame
from fedguard.evaluation.results.store import Store

PAIR = ["pseudo_clients", "recommended"]
#: Column of ``standing`` → title.
SHOWN = {
    "dacc": "DACC",
    "dacc_active": "DACC, active",
    "fpr": "FPR",
    "fnr_active": "FNR, active",
    "fnr_harm": "FNR by harm",
    "clean": "FPR, no attack",
}


def percent(value: float, half: float | None = None) -> str:
    """In percent, with the half width of an interval."""
    if pd.isna(value):
        return "–"
    return f"{100 * value:.1f}" + ("" if half is None or pd.isna(half) else f" ± {100 * half:.1f}")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def overview(rows: pd.DataFrame) -> str:
    """One row per detector."""
    found = standing(rows)
    table = [
        [name, *(percent(row[column], row[f"{column}_ci"]) for column in SHOWN)]
        for name, row in found.iterrows()
    ]
    return markdown(["detector", *SHOWN.values()], table)


def by_attack(rows: pd.DataFrame) -> str:
    """Both detectors, attack by attack: means over seeds, with the harm of the undefended federation."""
    part = rows[rows["detector"].isin(PAIR)]
    points = sorted(
        {(beta, m) for beta, m in zip(part["beta"], part["malicious"], strict=True)}, reverse=True
    )
    means = part.groupby(["attack", "beta", "malicious", "detector"])[
        ["dacc_active", "fpr", "fnr_active", "harm"]
    ]
    found = means.mean()
    header = ["attack"]
    for beta, malicious in points:
        header += [f"β = {beta:g}, {malicious} malicious: harm", *(f"{d}: DACC / FPR / FNR" for d in PAIR)]
    table = []
    for attack in sorted(part["attack"].unique(), key=lambda name: (name != "none", name)):
        line = [attack]
        for beta, malicious in points:
            cells = [found.loc[(attack, beta, malicious, detector)] for detector in PAIR]
            line.append(percent(cells[0]["harm"]))
            line += [" / ".join(percent(c[k]) for k in ("dacc_active", "fpr", "fnr_active")) for c in cells]
        table.append(line)
    return markdown(header, table)


def lost(rows: pd.DataFrame) -> str:
    """Where DACC is lost, in percentage points."""
    found = losses(rows).loc[PAIR]
    return markdown(["detector", *found.columns], [[n, *map(percent, row)] for n, row in found.iterrows()])


def closed(folder: Path) -> str:
    """The closed loop: accuracy and attack success by defense, and honest clients that were banned."""
    runs = run_frame(Store(folder), ["partition.beta", "malicious"])
    runs = runs[runs["status"] == "done"]
    clean = runs[(runs["attack"] == "none") & (runs["defense"] == "no_defense")]
    level = clean.groupby(["partition.beta", "seed"])["tacc"].first()
    place = zip(runs["partition.beta"], runs["seed"], strict=True)
    runs["below"] = [level[key] for key in place] - runs["tacc"]
    attacked = runs[runs["attack"] != "none"]
    table = []
    for defense, part in attacked.groupby("defense"):
        quiet = runs[(runs["attack"] == "none") & (runs["defense"] == defense)]
        table.append(
            [
                str(defense),
                percent(part["tacc"].mean()),
                percent(part["below"].mean()),
                percent((part["below"] > 0.01).mean()),
                percent(part["asr"].mean()),
                percent((part["asr"] > 0.05).sum() / part["asr"].notna().sum()),
                percent(part["fpr"].mean()),
                percent(part["fnr"].mean()),
                percent(quiet["fpr"].mean()),
                percent(quiet["below"].mean()),
            ]
        )
    header = [
        "defense",
        "accuracy",
        "below the attack-free run",
        "runs more than a point below",
        "attack success",
        "backdoors above 5 %",
        "FPR",
        "FNR",
        "FPR, no attack",
        "below it, no attack",
    ]
    return markdown(header, table) + "\n\n" + _by_attack_closed(attacked)


def _by_attack_closed(attacked: pd.DataFrame) -> str:
    found = attacked.groupby(["attack", "defense"])[["below", "asr", "fpr", "fnr"]].mean()
    defenses = sorted(attacked["defense"].unique())
    header = ["attack", *(f"{d}: below / success / FPR / FNR" for d in defenses)]
    table = [
        [attack, *(" / ".join(percent(v) for v in found.loc[(attack, d)]) for d in defenses)]
        for attack in sorted(attacked["attack"].unique())
    ]
    return markdown(header, table)


def main() -> None:
    """Print the tables of each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", nargs="+", type=Path)
    parser.add_argument("--closed", action="store_true", help="folders of closed loops")
    parser.add_argument("--csv", type=Path, help="write the rows of all folders")
    args = parser.parse_args()
    if args.closed:
        for folder in args.folder:
            print(f"\n### {folder.name}\n\n{closed(folder)}")
        return
    parts = [rows_of(folder) for folder in args.folder]
    for folder, rows in zip(args.folder, parts, strict=True):
        print(f"\n### {folder.name}\n\n{overview(rows)}\n")
        for beta in sorted(rows["beta"].unique(), reverse=True):
            print(f"β = {beta:g}:\n\n{overview(rows[rows['beta'] == beta])}\n")
        print(f"Where DACC is lost, in points:\n\n{lost(rows)}\n\n{by_attack(rows)}")
    if args.csv:
        write_rows(pd.concat(parts), args.csv)


if __name__ == "__main__":
    main()
