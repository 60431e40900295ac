"""Seconds of the recommended guard beside its clients' training, on a CNN.

FEDGUARD_DATA=DATA python benchmarks/recommended_cost.py [--rounds 5] [--clients 20] [--pseudo-clients]

Fashion-MNIST, the network of FedREDefense's Table 5, batches of 32; 10 steps are one epoch of 320 samples.
Everything runs in one process on one thread. Training is timed twice: FedGuard's own, and the plain PyTorch
loop that a client of a real federation runs, after each round, as other work on the machine slows rounds
down. Medians over the rounds after the first, also of the shares. ``--written-out`` is with pseudo-clients,
with the gradients by class and label written out, as before they became products.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedguard.simulation.federation import Federation
from fedguard.simulation.models import FedredefenseFmnistCnn
from fedguard.simulation.settings import Cell

BATCH = 32
FEDERATION: dict[str, Any] = {
    "data": "fashion_mnist",
    "partition": {"name": "dirichlet", "beta": 0.5},
    "model": "fedredefense_fmnist_cnn",
    "malicious": 5,
    "defense_label": "recommended",
    "seed": 0,
}
SERVERS = {"with validation data": {"validation": 500}, "without": {}}
ATTACKS = ("none", "label_flip")
#: What a round's seconds are spent on besides the detector and the policy.
NOT_THE_GUARDS = {"training", "attack", "aggregator"}


def seconds(
    attack: str, server: dict[str, int], rounds: int, steps: int, clients: int, detector: dict[str, Any]
) -> NDArray[np.float64]:
    """(rounds, 3) of the detector and the policy, of training, and of training in a plain loop."""
    cell = Cell.model_validate(
        {
            **FEDERATION,
            "clients": clients,
            "rounds": rounds + 1,
            "training": {"steps": steps, "batch_size": BATCH, "lr": 0.05},
            "server": server,
            "attack_label": attack,
            "attack": {"name": attack},
            "defense": {"detector": detector, "policy": "evidence"},
        }
    )
    federation = Federation(cell)
    found = []
    for index in range(rounds + 1):
        spent = federation.advance(index).seconds
        plain = plain_seconds(steps, clients)
        own = sum(value for name, value in spent.items() if name not in NOT_THE_GUARDS)
        found.append([own, spent["training"], plain])
    return np.array(found[1:])


def plain_seconds(steps: int, clients: int) -> float:
    """All clients' training in a plain loop, once. Time does not depend on the images."""
    model = FedredefenseFmnistCnn((1, 28, 28), 10)
    images, labels = torch.rand(BATCH, 1, 28, 28), torch.randint(10, (BATCH,))
    start = time.perf_counter()
    for _ in range(clients):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return time.perf_counter() - start


def main() -> None:
    """Print a line per server and attack."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--pseudo-clients", action="store_true")
    parser.add_argument("--written-out", action="store_true")
    args = parser.parse_args()
    detector: dict[str, Any] = {"name": "recommended", "pseudo_clients": args.pseudo_clients}
    if args.written_out:
        detector = {"name": "recommended_same_verdicts:WrittenOut"}
    torch.set_num_threads(1)
    print("| server | attack | detector, s | training, s | share % | training in a plain loop, s | share % |")
    print("|:--|:--|--:|--:|--:|--:|--:|")
    for label, server in SERVERS.items():
        for attack in ATTACKS:
            spent = seconds(attack, server, args.rounds, args.steps, args.clients, detector)
            own, train, plain = np.median(spent, axis=0)
            shares = 100 * np.median(spent[:, :1] / spent[:, 1:], axis=0)
            print(
                f"| {label} | {attack} | {own:.3f} | {train:.2f} | {shares[0]:.1f} "
                f"| {plain:.2f} | {shares[1]:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
