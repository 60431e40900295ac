"""FedREDefense under Scaling and DBA, a first round of Table 1: every client's verdict for each momentum.

    FEDGUARD_DATA=DATA python benchmarks/papers/fedredefense2024/verdicts.py rows --seeds 0 1 2
    python benchmarks/papers/fedredefense2024/verdicts.py table
    FEDGUARD_DATA=DATA python benchmarks/papers/fedredefense2024/verdicts.py rows --network convnet --seeds 0

The federation is that of ``fashion_mnist.yaml`` (100 clients, 28 malicious, Table 5's network, cap 800). A
client's verdict depends on nobody else in a first round, so honest clients are scored once for both attacks.
``rows`` appends a line per client and skips the lines that are there, so it can be stopped at any time.
``paper`` is what the paper says (momentum 0, uniform noise), ``released`` what the authors' scripts do
(momentum 0.5, Gaussian noise).

``--network convnet`` is the network of the authors' scripts. An iteration takes 24 times as long there, so
only four attackers of Scaling and eight honest clients are judged, in a file of their own.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedguard import Round, make_detector
from fedguard.core.threads import single_thread
from fedguard.simulation.federation import Federation
from fedguard.simulation.settings import AttackSpec, Cell, Defense, Spec, TrainingSettings

FOLDER = Path(__file__).parents[2] / "results" / "papers" / "fedredefense2024"
FIELDS = ("settings", "seed", "kind", "client", "error", "iterations", "length")
ATTACKS = {
    "scaling": AttackSpec(name="scaling_backdoor"),
    "dba": AttackSpec(name="dba", target=0, scale=3.0, fraction=1.0),
}
SETTINGS = {"paper": {"momentum": 0.0, "init": "uniform"}, "released": {"momentum": 0.5, "init": "gaussian"}}
THRESHOLD, CAP = 0.6, 800


class Network(NamedTuple):
    """A network and how many clients of each kind are judged on it."""

    model: Spec
    file: str
    judged: dict[str, int]


NETWORKS = {
    "table5": Network(
        Spec(name="fedredefense_fmnist_cnn"), "verdicts.csv", {"scaling": 28, "dba": 28, "honest": 72}
    ),
    "convnet": Network(
        Spec(name="scaled_updates:convnet"), "verdicts_convnet.csv", {"scaling": 4, "honest": 8}
    ),
}


def first_round(attack: str, seed: int, model: Spec) -> tuple[Round, set[int]]:
    """The updates of the first round and the malicious clients' positions."""
    cell = Cell(
        data=Spec(name="fashion_mnist"),
        partition=Spec(name="dirichlet", beta=0.1, equal_sizes=True),
        model=model,
        clients=100,
        malicious=28,
        rounds=1,
        training=TrainingSettings(epochs=1, batch_size=32, lr=0.001),
        attack_label=attack,
        attack=ATTACKS[attack],
        defense_label="none",
        defense=Defense(),
        seed=seed,
    )
    federation = Federation(cell)
    round_ = federation.advance(0).round
    assert round_ is not None
    return round_, set(federation.setup.malicious)


def clients(seed: int, network: Network) -> Iterator[tuple[str, int, Round]]:
    """(kind, position, round of this client alone): the attackers of each attack, then the honest clients."""
    attacks = [kind for kind in network.judged if kind in ATTACKS]
    rounds = {attack: first_round(attack, seed, network.model) for attack in attacks}
    for attack, (round_, malicious) in rounds.items():
        for i in sorted(malicious)[: network.judged[attack]]:
            yield attack, i, round_.take([i])
    round_, malicious = rounds["scaling"]
    for i in sorted(set(range(round_.n)) - malicious)[: network.judged["honest"]]:
        yield "honest", i, round_.take([i])


def write(settings: str, seed: int, network: Network) -> None:
    """Append what is missing of a seed."""
    mine = [r for r in read(network) if r["settings"] == settings and r["seed"] == str(seed)]
    done = {(row["kind"], int(row["client"])) for row in mine}
    if len(done) == sum(network.judged.values()):
        return
    method = make_detector("fedredefense", first_iterations=CAP, **SETTINGS[settings])
    with (FOLDER / network.file).open("a", newline="") as file, single_thread():
        out = csv.writer(file, lineterminator="\n")
        if not file.tell():
            out.writerow(FIELDS)
        for kind, i, round_ in clients(seed, network):
            if (kind, i) in done:
                continue
            scores = method(round_)
            length = float(round_.updates.matrix.norm())
            count = int(scores.info["iterations_max"])
            out.writerow((settings, seed, kind, i, f"{scores.values[0]:.4f}", count, f"{length:.4f}"))
            file.flush()


def read(network: Network) -> list[dict[str, str]]:
    """The lines that are there."""
    if not (FOLDER / network.file).exists():
        return []
    with (FOLDER / network.file).open(newline="") as file:
        return list(csv.DictReader(file))


def show(network: Network) -> None:
    """One line per settings and attack: mean and range over the seeds; the iterations are honest clients'."""
    rows = read(network)
    titles = (
        "settings",
        "attack",
        "seeds",
        "DACC %",
        "FPR %",
        "FNR %",
        "errors, malicious",
        "errors, honest",
    )
    print("| " + " | ".join((*titles, "iterations")) + " |")
    print("|---|---|---|---|---|---|---|---|---|")
    for settings in SETTINGS:
        for attack in ATTACKS:
            if attack in network.judged:
                mine = [row for row in rows if row["settings"] == settings]
                print(_line(settings, attack, mine, network.judged))


def _line(settings: str, attack: str, rows: list[dict[str, str]], judged: dict[str, int]) -> str:
    rates, bad_errors, good_errors, counts = [], [], [], []
    for seed in sorted({row["seed"] for row in rows}):
        bad = _errors(rows, seed, attack)
        good = _errors(rows, seed, "honest")
        if len(bad) < judged[attack] or len(good) < judged["honest"]:
            continue
        wrong, missed = int((good > THRESHOLD).sum()), int((bad <= THRESHOLD).sum())
        right = 1 - (wrong + missed) / (len(bad) + len(good))
        rates.append((100 * right, 100 * wrong / len(good), 100 * missed / len(bad)))
        bad_errors.append(bad)
        good_errors.append(good)
        counts += [int(r["iterations"]) for r in rows if r["seed"] == seed and r["kind"] == "honest"]
    if not rates:
        return f"| {settings} | {attack} | 0 |" + " – |" * 6
    table = np.array(rates)
    cells = [f"{row.mean():.1f} ({row.min():.1f}–{row.max():.1f})" for row in table.T]
    cells += [_range(np.concatenate(errors)) for errors in (bad_errors, good_errors)]
    return " | ".join([f"| {settings}", attack, str(len(rates)), *cells, f"{min(counts)}–{max(counts)} |"])


def _errors(rows: list[dict[str, str]], seed: str, kind: str) -> np.ndarray:
    return np.array([float(r["error"]) for r in rows if r["seed"] == seed and r["kind"] == kind])


def _range(values: np.ndarray) -> str:
    return f"{values.mean():.2f} ({values.min():.2f}–{values.max():.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["rows", "table"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--network", choices=list(NETWORKS), default="table5")
    args = parser.parse_args()
    network = NETWORKS[args.network]
    if args.what == "table":
        return show(network)
    for settings in args.settings:
        for seed in args.seeds:
            write(settings, seed, network)


if __name__ == "__main__":
    main()
