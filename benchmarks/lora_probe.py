"""How probes do on recorded federations: false alarms, misses, ranking and weights, one CSV row each.

    python benchmarks/lora_probe.py --probe one_seed=p0.safetensors --probe other=p1.safetensors recorded/*

Each recording is judged from its first round on, by a fresh ``lora_probe`` that accepts other starts. An
update is malicious if its client attacked in that round. FPR and FNR are over all updates of a recording,
AUROC is the mean over its rounds; without attackers, FNR and AUROC are empty. Weights: in the last round.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from fedguard import Guard, make_detector, make_policy
from fedguard.evaluation.metrics.scores import auroc
from fedguard.recording import Recording, replay
from fedguard.simulation.recorded import Roster, server_of


def judged(folder: Path, name: str, probe: str) -> dict[str, object]:
    """One row: what a probe says of a recording."""
    recording = Recording(folder)
    roster, server = Roster(recording), server_of(recording)
    detector = make_detector("lora_probe", probe=probe, same_start=False)
    guard = Guard(detector, make_policy("reweight"))
    kinds, flags, ranks, start = [], [], [], float("nan")
    weights = np.zeros(0)
    for recorded, outcome in replay(recording, guard, server):
        attacking = set(recorded.remarks.get("attacking", ()))
        bad = np.array([roster.number(client) in attacking for client in recorded.round.client_ids])
        kinds.append(bad)
        flags.append(outcome.suspects)
        ranks.append(auroc(bad, outcome.scores))
        weights = outcome.weights
        if len(kinds) == 1:
            start = outcome.info["lora_probe"].get("same_start", start)
    bad, flagged = np.concatenate(kinds), np.concatenate(flags)

    def mean(values: np.ndarray, some: np.ndarray) -> float:
        return round(float(values[some].mean()), 3) if some.any() else float("nan")

    return {
        "probe": name,
        "recording": folder.name,
        "rounds": len(kinds),
        "start_cosine": round(start, 3),
        "fpr": mean(flagged, ~bad),
        "fnr": mean(~flagged, bad),
        "auroc": round(float(np.mean(ranks)), 3),
        "weight_honest": mean(weights, ~kinds[-1]),
        "weight_malicious": mean(weights, kinds[-1]),
    }


def main() -> None:
    """Print a row per probe and recording."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--probe", action="append", required=True, metavar="NAME=FILE")
    arguments = parser.parse_args()
    probes = [text.partition("=") for text in arguments.probe]
    rows = [judged(folder, name, file) for name, _, file in probes for folder in arguments.recordings]
    print(pd.DataFrame(rows).to_csv(index=False), end="")


if __name__ == "__main__":
    main()
