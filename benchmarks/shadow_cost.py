"""What it costs to watch one federation with ten detectors instead of one, and instead of ten federations.

    python benchmarks/shadow_cost.py [--quick] [--out FILE]

Shadow mode trains one undefended federation and shows every round to all detectors; in the closed loop each
detector acts in a federation of its own. Everything runs in one process on one thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

import torch
from bench import Row, compare, table

from fedguard.simulation.federation import Federation
from fedguard.simulation.records import RoundRecord
from fedguard.simulation.settings import Cell
from fedguard.simulation.shadow import Shadow

DETECTORS = (
    "krum",
    "foolsgold",
    "dnc",
    "lfr",
    "norm_bound",
    "three_sigma",
    "signguard",
    "multi_metric",
    "rflbat",
    "freqfed",
)
DIGITS = {
    "data": "digits",
    "partition": {"name": "dirichlet", "beta": 1.0},
    "rounds": 10,
    "training": {"epochs": 2, "batch_size": 16, "lr": 0.1},
}
FEDERATIONS: dict[str, dict[str, Any]] = {
    "logistic regression on digits": {**DIGITS, "model": "logistic_regression"},
    "perceptron on digits": {**DIGITS, "model": {"name": "mlp", "hidden": [200]}},
}
if os.environ.get("FEDGUARD_DATA"):
    FEDERATIONS["CNN on Fashion-MNIST"] = {
        "data": "fashion_mnist",
        "model": "fedredefense_fmnist_cnn",
        "rounds": 2,
        "training": {"steps": 10, "lr": 0.01},
    }


def cells(federation: dict[str, Any], mode: str) -> list[Cell]:
    """One cell per detector: 20 clients, 6 of them attacking."""
    base = {
        **federation,
        "clients": 20,
        "malicious": 6,
        "server": {"validation": 100},
        "attack_label": "label_flip",
        "attack": {"name": "label_flip"},
        "mode": mode,
        "seed": 0,
    }
    return [
        Cell.model_validate({**base, "defense_label": name, "defense": {"detector": name}})
        for name in DETECTORS
    ]


def in_shadow(watching: list[Cell]) -> list[list[RoundRecord]]:
    """The records of every detector."""
    shadow = Shadow(watching)
    shadow.run()
    errors = [watcher.error for watcher in shadow.watchers if watcher.error]
    if errors:
        sys.exit(errors[0])
    return [watcher.records for watcher in shadow.watchers]


def closed(acting: list[Cell]) -> list[list[RoundRecord]]:
    """The same, each detector in a federation of its own."""
    return [Federation(cell).run() for cell in acting]


def first_rounds(ours: list[list[RoundRecord]], theirs: list[list[RoundRecord]]) -> str:
    """In the first round nobody has acted yet: every detector must say the same in both modes."""
    same = all(
        [row.suspect for row in a[0].clients] == [row.suspect for row in b[0].clients]
        for a, b in zip(ours, theirs, strict=False)
    )
    return "same verdicts in the first round" if same else "DIFFERENT verdicts in the first round"


def rows(quick: bool) -> list[Row]:
    """Ten detectors in shadow mode against ten closed loops, and one detector against ten."""
    found = []
    for name, settings in FEDERATIONS.items():
        federation = {**settings, "rounds": 2} if quick else settings
        repeats = 1 if quick else 5
        shadow, loops = cells(federation, "shadow"), cells(federation, "closed")
        work = f"{name}, 20 clients, {federation['rounds']} rounds: "
        pairs = (
            ("ten detectors in shadow mode", "ten closed loops", shadow, lambda loops=loops: closed(loops)),
            (
                "one detector in shadow mode",
                "ten in shadow mode",
                shadow[:1],
                lambda shadow=shadow: in_shadow(shadow),
            ),
        )
        for ours, theirs, watching, other in pairs:
            found.append(
                compare(
                    work + ours,
                    theirs,
                    None,
                    lambda watching=watching: in_shadow(watching),
                    other,
                    first_rounds,
                    repeats=repeats,
                    threads=1,
                )
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    text = (
        "# One federation, many detectors\n\n"
        f"`python benchmarks/shadow_cost.py{' --quick' if given.quick else ''}`: one thread, "
        f"torch {torch.__version__}. Detectors: {', '.join(DETECTORS)}. Under label flips.\n\n"
        f"{table(rows(given.quick))}\n"
    )
    print(text)
    if given.out:
        given.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
