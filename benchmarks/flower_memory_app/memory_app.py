"""The server of ../flower_memory.py: FedAvg behind a guard, which writes down its peak of resident memory."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

import fedguard
from fedguard.flower import GuardedStrategy

app = ServerApp()
#: Only to be named: the silos are those of the script.
client = ClientApp()
#: Arrays per model.
LAYERS = 4


def record(parameters: int, seed: int, step: float = 0.0, noise: float = 0.0) -> ArrayRecord:
    """The global model, moved by a step and noise of this seed; made array by array."""
    made, base, own = ArrayRecord(), np.random.default_rng(0), np.random.default_rng(seed)
    for layer in range(LAYERS):
        array = base.standard_normal(parameters // LAYERS, dtype=np.float32)
        if noise:
            array += np.float32(noise) * own.standard_normal(len(array), dtype=np.float32) + np.float32(step)
        made[f"layer{layer}"] = Array(array)
    return made


def resident(name: str) -> int:
    """A size of this process in /proc/self/status, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


@app.main()
def main(grid: Grid, context: Context) -> None:
    """One round."""
    config, silos = context.run_config, int(context.run_config["silos"])
    before = resident("VmRSS")
    detector = fedguard.make_detector("krum", num_malicious=1)
    policy = fedguard.make_policy("ban", strikes=1, rule={"name": "mad", "k": 8.0})
    inner = FedAvg(fraction_evaluate=0.0, min_train_nodes=silos, min_available_nodes=silos)
    spill = str(config["spill"]) or None
    strategy = GuardedStrategy(inner, fedguard.Guard(detector, policy), spill=spill, patience=60)
    start = time.perf_counter()
    result = strategy.start(grid, record(int(config["parameters"]), 0), num_rounds=1, timeout=3000)
    last = result.arrays["layer0"].numpy()
    found = {
        "seconds": time.perf_counter() - start,
        "before": before,
        "peak": resident("VmHWM"),
        "banned": sum(verdict.banned for verdict in strategy.verdicts),
        "accepted": sum(verdict.weight == 1 for verdict in strategy.verdicts),
        "moved": float((last - record(LAYERS * len(last), 0)["layer0"].numpy()).mean(dtype=np.float64)),
    }
    Path(str(config["report"])).write_text(json.dumps(found), encoding="utf-8")
