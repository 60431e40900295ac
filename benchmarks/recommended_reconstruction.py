"""Two ways to reconstruct an update, as a signal for the recommended guard: distilled images, or the classes.

FEDGUARD_DATA=DATA python benchmarks/recommended_reconstruction.py [--data digits mnist] [--seeds 10]

In shadow mode, on the data and attacks with which limits are chosen: FedREDefense's error with knowledge kept
per client (preset fast; or always 10, or 2 iterations), and the cosine to the cone of class gradients. Every
signal is put in deviations of the round's shortest half, its limit at the 99.8 % quantile of clean runs.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from fedguard import make_detector
from fedguard.detectors._class_cone import unexplained
from fedguard.detectors._signals import standard
from fedguard.simulation.federation import Federation
from fedguard.simulation.settings import Cell

FEDERATIONS: dict[str, dict[str, Any]] = {
    "digits": {
        "model": {"name": "mlp", "hidden": [32]},
        "training": {"epochs": 2, "batch_size": 16, "lr": 0.1},
        "rounds": 12,
    },
    "mnist": {
        "model": {"name": "mlp", "hidden": [64]},
        "training": {"epochs": 1, "batch_size": 64, "lr": 0.1},
        "rounds": 10,
    },
}
BETAS = (0.1, 0.5, 100.0)
ATTACKS = (
    ("none", 0),
    ("label_flip", 0),
    ("label_flip", 5),
    ("lie", 5),
    ("ipm", 5),
    ("scaling_backdoor", 5),
)
DISTILLED: dict[str, dict[str, Any]] = {
    "fast": {},
    "10 iterations": {"schedule": "continuous"},
    "2 iterations": {"schedule": "continuous", "first_iterations": 2, "later_iterations": 2},
}
KEYS = ["data", "beta", "attack", "start", "seed"]
#: The smallest deviation, as for the signal in the detector.
FLOOR = 0.1


def watch(data: str, beta: float, attack: str, start: int, seed: int) -> pd.DataFrame:
    """One row per client and round of an undefended federation, with every signal."""
    cell = Cell.model_validate(
        {
            **FEDERATIONS[data],
            "data": data,
            "partition": {"name": "dirichlet", "beta": beta},
            "clients": 20,
            "malicious": 5,
            "server": {"validation": 100},
            "attack_label": attack,
            "attack": {"name": attack, "schedule": {"start": start}},
            "defense_label": "",
            "defense": {},
            "seed": seed,
        }
    )
    federation, frames = Federation(cell), []
    methods = {n: make_detector("fedredefense", preset="fast", **p) for n, p in DISTILLED.items()}
    for index in range(cell.rounds):
        progress = federation.advance(index)
        round_ = progress.round
        table: dict[str, Any] = {"bad": [c in progress.attacking for c in progress.asked]}
        for name, method in methods.items():
            scores = method(round_)
            method.commit(round_, scores)
            table[name] = np.minimum(scores.values, 2.0)
        server = round_.server
        table["classes"] = unexplained(round_, server.model, round_.global_params, server.validation)
        frames.append(pd.DataFrame(table).assign(round=index))
    return pd.concat(frames).assign(**dict(zip(KEYS, (data, beta, attack, start, seed), strict=True)))


def show(frame: pd.DataFrame) -> None:
    """Raw errors of honest clients, then what each signal sees."""
    frame = frame.reset_index(drop=True)
    clean = frame["attack"] == "none"
    raw = frame[clean].assign(above=frame["fast"] > 0.6).groupby(["data", "beta"])
    columns = raw[["fast", "classes"]].median().assign(largest=raw["fast"].max(), above=raw["above"].mean())
    print("Clean runs: medians, the largest error of the preset fast, the share above its 0.6\n")
    print(columns.round(3).to_markdown(), "\n")
    rounds = frame.groupby([*KEYS, "round"])
    rows = []
    for name in (*DISTILLED, "classes"):
        z = rounds[name].transform(lambda v: standard(v.to_numpy(), FLOOR))
        limit = z[clean].quantile(0.998)
        attacked = frame[~clean & (frame["round"] >= frame["start"])].assign(z=z)
        for key, part in attacked.groupby(["data", "beta", "attack", "start"]):
            seen = 100 * (part["z"][part["bad"]] > limit).mean()
            area = roc_auc_score(part["bad"], part["z"])
            rows.append((*key, f"{name} (limit {limit:.1f})", f"{seen:.0f} % ({area:.2f})"))
    head = ["data", "beta", "attack", "start", "signal", "seen (AUROC)"]
    table = pd.DataFrame(rows, columns=head).pivot_table(
        index=head[:4], columns="signal", values="seen (AUROC)", aggfunc="first"
    )
    print(table.to_markdown())


def main() -> None:
    """Watch all federations, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(FEDERATIONS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[10])
    args = parser.parse_args()
    cells = [(d, b, a, s, seed) for d in args.data for b in BETAS for a, s in ATTACKS for seed in args.seeds]
    show(pd.concat([watch(*cell) for cell in cells]))


if __name__ == "__main__":
    main()
