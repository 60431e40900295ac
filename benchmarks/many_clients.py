"""One round of 10,000 clients, method by method: seconds and memory beside the updates.

    python benchmarks/many_clients.py                         # 10,000 × 10⁴, every method
    python benchmarks/many_clients.py --parameters 100000 --only dnc geometric_median

Every method runs in a process of its own, on updates that share a direction; a tenth of the clients sends
five times as much, reversed. Seconds are those of the processor, which other work on the machine hardly
disturbs. Memory is the peak of the resident set above what the process had before the last round. A method
with a memory of earlier rounds judges a third round. Whatever needs the model or data is left out.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench import extra_memory, normal_updates

from fedguard import Round, make_aggregator, make_detector

#: Rounds before the measured one, for methods that compare rounds.
EARLIER = {"cross_round": 2, "flanders": 2, "fldetector": 2, "foolsgold": 2}
#: Methods that are told how many clients are malicious: a tenth.
TOLD = {"krum", "dnc", "trimmed_mean", "bulyan", "mda", "caf", "meamed"}
DETECTORS = (
    "norm_bound",
    "krum",
    "dnc",
    "foolsgold",
    "fldetector",
    "flanders",
    "cross_round",
    "three_sigma",
    "multi_metric",
    "signguard",
    "alignins",
    "mesas",
    "freqfed",
    "rflbat",
    "sklearn",
    "afa",
    "flame",
    "recommended",
)
AGGREGATORS = (
    "mean",
    "median",
    "trimmed_mean",
    "geometric_median",
    "rfa",
    "krum",
    "bulyan",
    "centered_clipping",
    "clipped_clustering",
    "caf",
    "mda",
    "meamed",
)
NAMES = (*(f"{name} (detector)" for name in DETECTORS), *AGGREGATORS)


def updates(n: int, d: int, seed: int) -> torch.Tensor:
    X = normal_updates(n, d, seed=seed)
    X[: n // 10] *= -5
    return X


def measure(label: str, n: int, d: int) -> dict[str, Any]:
    name, _, kind = label.partition(" ")
    make = make_detector if kind else make_aggregator
    params = {"num_malicious": n // 10} if name in TOLD else {}
    method: Any = make(name, **params)
    small = make(name, **({"num_malicious": 4} if params else {}))
    small(Round(updates(40, 50, 0), global_params=torch.zeros(50)))  # imports what it needs
    model = torch.zeros(d)
    for index in range(EARLIER.get(name, 0)):
        round = Round(updates(n, d, index), global_params=model, index=index)
        method.commit(round, method(round))
        model = model + round.updates.mean.float()
        del round
    X = updates(n, d, 9)

    def judge() -> tuple[Any, float]:
        start = time.process_time()
        found = method(Round(X, global_params=model, index=EARLIER.get(name, 0)))
        return found, time.process_time() - start

    (found, seconds), memory = extra_memory(judge)
    verdict = found.suspects if kind else found.numpy()
    digest = hashlib.sha256(np.ascontiguousarray(verdict).tobytes()).hexdigest()[:8]
    suspects = int(found.suspects.sum()) if kind else -1
    return {"seconds": seconds, "extra_mib": memory, "suspects": suspects, "digest": digest}


def in_a_process(label: str, given: argparse.Namespace) -> dict[str, Any] | str:
    size = ["--clients", str(given.clients), "--parameters", str(given.parameters)]
    try:
        done = subprocess.run(  # noqa: S603 - ourselves
            [sys.executable, __file__, "--case", label, *size],
            capture_output=True,
            text=True,
            timeout=given.limit,
        )
    except subprocess.TimeoutExpired:
        return f"more than {given.limit:.0f} s"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["killed"])[-1][:90]
    return json.loads(done.stdout.splitlines()[-1])


def row(label: str, found: dict[str, Any] | str) -> str:
    if isinstance(found, str):
        return f"| {label} | – | – | – | {found} |"
    suspects = found["suspects"] if found["suspects"] >= 0 else ""
    return f"| {label} | {found['seconds']:.1f} | {found['extra_mib']:.0f} | {suspects} | {found['digest']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--parameters", type=int, default=10**4)
    parser.add_argument("--only", nargs="*", default=NAMES, help="names, as in the table or without ' (…)'")
    parser.add_argument("--limit", type=float, default=300, help="seconds for one method, its input included")
    parser.add_argument("--case", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help="also append the table to this file")
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(given.case, given.clients, given.parameters)))
        return
    lines = [
        f"{given.clients:,} clients × {given.parameters:,} parameters, float32 "
        f"({given.clients * given.parameters * 4 / 2**20:.0f} MiB); {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}, torch {torch.__version__}, "
        f"NumPy {np.__version__}. A table of n² float64 takes {given.clients**2 * 8 / 2**20:.0f} MiB.",
        "",
        "| method | processor seconds | extra MiB | suspects | digest of the verdict or aggregate |",
        "|:--|--:|--:|--:|:--|",
    ]
    print("\n".join(lines), flush=True)
    for label in NAMES:
        if label in given.only or label.partition(" ")[0] in given.only:
            lines.append(row(label, in_a_process(label, given)))
            print(lines[-1], flush=True)
    if given.out:
        command = " ".join(["python benchmarks/many_clients.py", *sys.argv[1:]])
        with given.out.open("a", encoding="utf-8") as file:
            file.write(f"    {command}\n\n" + "\n".join(lines) + "\n\n")


if __name__ == "__main__":
    main()
