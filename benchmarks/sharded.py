"""A round split by columns over Ray actors, and the same round in one memory: time, memory, bits.

    python benchmarks/sharded.py [--clients 200] [--parameters 10000000] [--shards 4] [--save]

Files of normal updates are written to a temporary folder. Either side computes squared distances, Krum's
choice and the median. On one machine the actors share its cores, so nothing is gained in time; what is shown
is that the bits are those of one memory, and how much memory each process takes.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import save_file

from fedguard import Round, ShardedUpdates, StreamedUpdates, Updates, make_aggregator

FILE = Path(__file__).parent / "results" / "sharded.md"


def write(folder: Path, n: int, d: int) -> list[Path]:
    """One file per client; a tenth of them is scaled by −3."""
    files = [folder / f"{i}.safetensors" for i in range(n)]
    for i, file in enumerate(files):
        draw = np.random.default_rng(i)
        update = draw.standard_normal(d, dtype=np.float32) + np.float32(0.5)
        save_file({"update": update * (-3 if i < n // 10 else 1)}, file)
    return files


def digest(values: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def work(updates: Updates) -> dict[str, Any]:
    """What is computed, by name."""
    round_ = Round(updates)
    return {
        "squared distances": lambda: updates.sq_distances,
        "Krum": lambda: make_aggregator("krum", num_malicious=len(updates) // 10)(round_),
        "median": lambda: make_aggregator("median")(round_),
    }


def measured(steps: dict[str, Callable[[], Any]]) -> dict[str, tuple[float, str]]:
    """Seconds and digest of each."""
    found = {}
    for name, step in steps.items():
        start = time.perf_counter()
        result = step()
        found[name] = time.perf_counter() - start, digest(result)
        print(name, *found[name], flush=True)
    return found


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--parameters", type=int, default=10**7)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        files = write(Path(folder), args.clients, args.parameters)
        updates = ShardedUpdates.on_ray(files, args.shards)
        _ = updates.norms  # the actors have read their columns
        before = peak()
        sharded = measured(work(updates))
        here = peak() - before
        actors = [shard.submit(_actor_peak)() for shard in updates._shards]
        alone = measured(work(StreamedUpdates(files)))
    lines = [
        "# A round in shards",
        "",
        f"`python benchmarks/sharded.py --clients {args.clients} --parameters {args.parameters} "
        f"--shards {args.shards}`, {os.cpu_count()} cores, torch {torch.__version__}. "
        f"Updates: {4e-9 * args.clients * args.parameters:.1f} GB. Peak memory of an actor: "
        f"{min(actors):.1f}–{max(actors):.1f} GiB; what this process adds to its peak: {here:.2f} GiB. "
        "Distances are kept for Krum; streamed, it reads the files once more for the check of NaN and Inf, "
        "which the shards' norms have done.",
        "",
        f"| work | seconds in {args.shards} shards | seconds streamed from disk, one process | bits |",
        "|---|---|---|---|",
    ]
    for name, (seconds, code) in sharded.items():
        other, same = alone[name][0], "equal" if code == alone[name][1] else "DIFFERENT"
        lines.append(f"| {name} | {seconds:.1f} | {other:.1f} | {same} |")
    text = "\n".join(lines) + "\n"
    print(text)
    if args.save:
        FILE.write_text(text, encoding="utf-8")


def _actor_peak(updates: Updates) -> float:
    return peak()


if __name__ == "__main__":
    main()
