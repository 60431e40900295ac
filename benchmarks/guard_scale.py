"""Time and memory of one round in the guard alone: 1000 clients × 10⁶ parameters by default.

    python benchmarks/guard_scale.py                                  # 8 to 12 GB of memory
    python benchmarks/guard_scale.py --clients 100 --parameters 100000
    python benchmarks/guard_scale.py --out benchmarks/results/guard_scale.md

Every case runs in a process of its own. Replies (lists of four arrays) are made one at a time, added to the
preallocated matrix (`fedguard.arrays.Rows`) and thrown away, as a server would do it; then the guard decides.
A tenth of the clients sends ten times as much. Memory is the peak of the resident set, above what the process
had before the first reply.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

#: name → (detector, its parameters, policy, aggregator)
CASES = {
    "mean alone": (None, {}, "observe", "mean"),
    "norm_bound, observe": ("norm_bound", {}, "observe", "mean"),
    "krum (m_krum), observe": ("krum", {"select": "m_krum"}, "observe", "mean"),
    "dnc, observe": ("dnc", {}, "observe", "mean"),
    "multi_metric, observe": ("multi_metric", {}, "observe", "mean"),
    "krum (m_krum), exclude": ("krum", {"select": "m_krum"}, "exclude", "mean"),
    "mean alone, one reply is NaN": (None, {}, "observe", "mean"),
}


def peak() -> int:
    """The largest resident set of this process so far, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


def reply(model: list[np.ndarray], client: int) -> list[np.ndarray]:
    rng = np.random.default_rng(client)
    scale = np.float32(1e-2 if client % 10 == 0 else 1e-3)
    return [own + scale * rng.standard_normal(own.shape, dtype=np.float32) for own in model]


def run_case(name: str, clients: int, parameters: int) -> dict[str, float]:
    import fedguard
    from fedguard.arrays import Rows

    kind, params, policy, aggregator = CASES[name]
    rng = np.random.default_rng(12345)
    rest = parameters - parameters // 2 - parameters // 4
    shapes = [(parameters // 2,), (parameters // 8, 2), (rest - rest // 2,), (rest // 2,)]
    shapes[2] = (parameters - sum(int(np.prod(shapes[k])) for k in (0, 1, 3)),)
    model = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
    if kind in ("krum", "dnc"):
        params = {**params, "num_malicious": clients // 10}
    guard = fedguard.Guard(
        fedguard.make_detector(kind, **params) if kind else (),
        fedguard.make_policy(policy),
        fedguard.make_aggregator(aggregator),
    )
    before = peak()
    rows = Rows(model, clients)
    seconds = 0.0
    for client in range(clients):
        sent = reply(model, client)
        if "NaN" in name and client == 7:
            sent[0][0] = np.nan
        start = time.perf_counter()
        rows.add(client, sent, 10)
        seconds += time.perf_counter() - start
    filled = peak()
    start = time.perf_counter()
    outcome = guard.process(rows.round())
    return {
        "fill_s": seconds,
        "guard_s": time.perf_counter() - start,
        "matrix": rows.matrix.nbytes,
        "fill": filled - before,
        "total": peak() - before,
        "suspects": int(outcome.suspects.sum()),
    }


def measure(name: str, clients: int, parameters: int) -> dict[str, float]:
    done = subprocess.run(  # noqa: S603 - ourselves
        [
            sys.executable,
            __file__,
            "--case",
            name,
            "--clients",
            str(clients),
            "--parameters",
            str(parameters),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def table(clients: int, parameters: int, names: list[str]) -> str:
    head = (
        f"{clients} clients × {parameters:,} parameters, float32; {os.cpu_count()} cores, "
        f"{os.environ.get('OMP_NUM_THREADS', 'all')} threads, Python {platform.python_version()}\n\n"
        "| guard | filling (s) | guard (s) | matrix (GB) | peak after filling (GB) | peak (GB) | suspects |\n"
        "|---|---:|---:|---:|---:|---:|---:|"
    )
    lines = [head]
    print(head, flush=True)
    for name in names:
        r = measure(name, clients, parameters)
        gb = [f"{r[key] / 1e9:.2f}" for key in ("matrix", "fill", "total")]
        lines.append(
            f"| {name} | {r['fill_s']:.1f} | {r['guard_s']:.1f} | {' | '.join(gb)} | {r['suspects']} |"
        )
        print(lines[-1], flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--parameters", type=int, default=10**6)
    parser.add_argument("--case", choices=CASES)
    parser.add_argument("--only", nargs="*", choices=CASES, default=list(CASES))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(run_case(given.case, given.clients, given.parameters)))
        return
    text = table(given.clients, given.parameters, given.only)
    if given.out:
        command = "python benchmarks/guard_scale.py " + " ".join(sys.argv[1:])
        given.out.write_text(f"# One round in the guard alone\n\n    {command}\n\n{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
