"""FedREDefense: who is caught, by attack, with a preset and any changes to it.

    FEDGUARD_DATA=DATA python benchmarks/fedredefense_detection.py --preset fast --seeds 0 1 2 --warm-up 10

On the rounds of ``fedredefense_rounds.py``: the detector watches the warm-up, in which everybody is honest,
and is asked about the last round under each attack. A client's verdict depends on nobody else, so honest
clients are scored once. With ``--honest`` and ``--malicious`` some clients of each kind stand for all: their
shares of false verdicts are weighted as 72 and 28.
"""

from __future__ import annotations

import argparse
import json
import os

import numpy as np
from fedredefense_rounds import GENUINE, every, scene, with_map
from speed_fedredefense import FOLDER

from fedguard import Detector, Round, make_detector
from fedguard.simulation.pool import Workers


def watch(method: Detector, rounds: list[Round], clients: list[int], pool: Workers) -> float:
    """Show the detector the warm-up; the most iterations that a client needed."""
    most = 0.0
    for round_ in rounds:
        seen = with_map(round_.take(clients), pool.map)
        scores = method(seen)
        method.commit(seen, scores)
        most = max(most, scores.info["iterations_max"])
    return most


def judge(
    method: Detector, round_: Round, clients: list[int], pool: Workers
) -> tuple[np.ndarray, np.ndarray, float]:
    """(errors, suspects, AOI) of some clients."""
    scores = method(with_map(round_.take(clients), pool.map))
    return scores.values, scores.suspects, scores.info["aoi"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default="fashion_mnist")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--set", default="{}", help="further parameters as JSON")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--warm-up", type=int, default=0)
    parser.add_argument("--forget", action="store_true", help="no knowledge from the warm-up")
    parser.add_argument("--honest", type=int, default=72)
    parser.add_argument("--malicious", type=int, default=28)
    parser.add_argument("--attacks", nargs="+")
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    args = parser.parse_args()
    table: dict[str, list[list[float]]] = {}
    with Workers(args.workers) as pool:
        for seed in args.seeds:
            keep = args.warm_up if args.warm_up <= 10 else 0
            part = scene(args.data, seed, args.warm_up, FOLDER, keep)
            bad = part.malicious.tolist()
            good = [i for i in range(part.honest.n) if i not in bad][: args.honest]
            bad = bad[: args.malicious]
            method = make_detector("fedredefense", preset=args.preset, **json.loads(args.set))
            most = watch(method, [] if args.forget else part.history, good + bad, pool)
            most = max(most, method(with_map(part.honest.take(good + bad), pool.map)).info["iterations_max"])
            print(seed, f"clean rounds: at most {most:.0f} iterations", flush=True)
            errors, wrong, aoi = judge(method, part.honest, good, pool)
            for attack, round_ in every(part):
                if args.attacks and attack not in args.attacks:
                    continue
                theirs, caught, theirs_aoi = judge(method, round_, bad, pool)
                fpr, share = float(wrong.mean()), float(caught.mean())
                fnr = 1 - share if attack != "none" else share
                row = [1 - 0.72 * fpr - 0.28 * fnr, fpr, fnr, 0.72 * aoi + 0.28 * theirs_aoi]
                row += [float(errors.max()), float(theirs.min()), float(theirs.max())]
                table.setdefault(attack, []).append(row)
                print(seed, attack, " ".join(f"{v:.3f}" for v in row), flush=True)
    show(table)


def show(table: dict[str, list[list[float]]]) -> None:
    """Means over the seeds; errors of honest and malicious clients over all of them."""
    print("\n| attack | DACC % | FPR % | FNR % | AOI | largest error, honest | errors, malicious |")
    print("|---|---|---|---|---|---|---|")
    for attack, rows in table.items():
        dacc, fpr, fnr, aoi, *_ = np.mean(rows, axis=0)
        highest, low, high = max(r[4] for r in rows), min(r[5] for r in rows), max(r[6] for r in rows)
        name = attack + (" (genuine)" if attack in GENUINE else "")
        print(
            f"| {name} | {100 * dacc:.1f} | {100 * fpr:.1f} | {100 * fnr:.1f} | {aoi:.1f} | {highest:.2f} "
            f"| {low:.2f} – {high:.2f} |"
        )


if __name__ == "__main__":
    main()
