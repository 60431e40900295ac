"""How many honest clients the policy "evidence" ever bans on clean runs, beside what it promises.

python benchmarks/evidence_promise.py FOLDER          # about a minute; goes on after an interruption

Digits, 20 clients, 40 rounds, 5 seeds, nobody attacks, three degrees of skew. The scores of the detector
"recommended" are stored once, and the policy is played on them.
"""

from __future__ import annotations

import argparse
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np

from fedguard import Ledger, PolicyInput, Scores, make_policy
from fedguard.evaluation.running.runner import run_suite
from fedguard.evaluation.suites.suite import Suite

ROUNDS, CLIENTS, SEEDS = 40, 20, [20, 21, 22, 23, 24]
BETAS = [1000.0, 0.5, 0.1]
SETTINGS = {
    "suspicions, rate 0.05": {"rounds": 0, "rate": 0.05},
    "10 rounds": {"rounds": 10},
    "10 rounds, own level": {"rounds": 10, "center": "own"},
}
Table = dict[int, list[tuple[int, float, bool]]]


def suite() -> Suite:
    """Clean runs under the detector, which only watches."""
    return Suite(
        name="evidence_promise",
        data="digits",
        partition={"name": "dirichlet", "beta": 0.5},
        model={"name": "mlp", "hidden": [32]},
        clients=CLIENTS,
        malicious=0,
        rounds=ROUNDS,
        training={"epochs": 2, "batch_size": 16, "lr": 0.1},
        server={"validation": 100},
        defenses={"watch": {"detector": "recommended", "policy": "observe"}},
        seeds=SEEDS,
        grid={"partition.beta": BETAS},
    )


def scores_of(folder: Path) -> dict[str, list[Table]]:
    """Per point of the grid, a run's scores by round: client, score, suspect."""
    query = """SELECT runs.point, runs.seed, round, client, score, suspect FROM clients
               JOIN runs USING (run) WHERE participated ORDER BY run, round, client"""
    runs: dict[tuple[str, int], Table] = defaultdict(lambda: defaultdict(list))
    with closing(sqlite3.connect(folder / "results.sqlite")) as store:
        for point, seed, index, client, score, suspect in store.execute(query):
            runs[point, seed][index].append((client, score, bool(suspect)))
    points: dict[str, list[Table]] = defaultdict(list)
    for (point, _), table in runs.items():
        points[point].append(table)
    return points


def banned(table: Table, alpha: float, params: dict[str, object]) -> int:
    """How many clients are ever banned; those banned are out from then on, as in a guard."""
    policy, out = make_policy("evidence", alpha=alpha, **params), set[int]()
    for index, rows in sorted(table.items()):
        rows = [row for row in rows if row[0] not in out]
        ids, values, flags = zip(*rows, strict=True)
        scores = Scores(np.array(values), np.array(flags), "above a limit")
        case = PolicyInput(index, ids, {"recommended": scores}, Ledger())
        decision = policy.decide(case)
        policy.commit(case, decision)
        out |= {ids[k] for k in decision.bans}
    return len(out)


def main() -> None:
    """Run what is left of the runs, then play the policy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    run_suite(suite(), folder, 2)
    print("| skew | p from | clients ever banned, α = 0.01 | α = 0.05 |\n|:--|:--|--:|--:|")
    for point, runs in scores_of(folder).items():
        total = len(runs) * CLIENTS
        for name, params in SETTINGS.items():
            shares = [sum(banned(run, alpha, params) for run in runs) for alpha in (0.01, 0.05)]
            cells = " | ".join(f"{count} of {total}" for count in shares)
            print(f"| {point.strip('{}')} | {name} | {cells} |")


if __name__ == "__main__":
    main()
