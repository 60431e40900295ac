"""What detection loses when a federation is judged in cohorts: a guard per cohort, one over their aggregates.

    FEDGUARD_DATA=DATA python benchmarks/cohorts.py [--malicious 20] [--rounds 8] [--seeds 0 1 2] [--save]

The federation is undefended, so that all plans see the same updates: MNIST, Dirichlet β = 0.5, a perceptron.
In a plan with k cohorts, a recommended guard judges the clients of each cohort, and another one judges the k
aggregates, as a region does with its silos. Clients are dealt to cohorts at random, or with the malicious
ones side by side, as if some silos had been taken over. A client counts as flagged if the guard of its cohort
flags it, or the guard above flags its whole cohort.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from fedguard import Guard, Round
from fedguard.simulation.federation import Federation
from fedguard.simulation.settings import AttackSpec, Cell, Defense, Spec, TrainingSettings

FILE = Path(__file__).parent / "results" / "cohorts.md"
ATTACKS = {
    "none": AttackSpec(name="none"),
    "random": AttackSpec(name="byzantine", mode="random"),
    "label flip": AttackSpec(name="label_flip"),
    "LIE": AttackSpec(name="lie"),
    "Min-Max": AttackSpec(name="min_max"),
    "Scaling": AttackSpec(name="scaling_backdoor"),
}
COHORTS = (1, 4, 10, 20)


def rounds(attack: str, seed: int, args: argparse.Namespace) -> Iterator[tuple[Round, np.ndarray]]:
    """Every round of the undefended federation, with who attacks."""
    cell = Cell(
        data=Spec(name="mnist"),
        partition=Spec(name="dirichlet", beta=0.5),
        model=Spec(name="mlp", hidden=[32]),
        clients=args.clients,
        malicious=0 if attack == "none" else args.malicious,
        rounds=args.rounds,
        training=TrainingSettings(epochs=1, batch_size=32, lr=0.1),
        attack_label=attack,
        attack=ATTACKS[attack],
        defense_label="none",
        defense=Defense(),
        seed=seed,
    )
    federation = Federation(cell)
    bad = np.isin(np.arange(args.clients), list(federation.setup.malicious))
    for index in range(args.rounds):
        round_ = federation.advance(index).round
        assert round_ is not None
        yield round_, bad


def dealt(bad: np.ndarray, cohorts: int, together: bool, seed: int) -> list[np.ndarray]:
    """The clients of each cohort: at random, or the malicious ones side by side."""
    order = np.random.default_rng(seed).permutation(len(bad))
    if together:
        order = order[np.argsort(~bad[order], kind="stable")]
    return [np.sort(part) for part in np.array_split(order, cohorts)]


class Plan:
    """A guard per cohort and one above them."""

    def __init__(self, members: list[np.ndarray]) -> None:
        self.members = members
        self.guards = [Guard.recommended() for _ in members]
        self.above = Guard.recommended()

    def judge(self, round_: Round) -> np.ndarray:
        """(n,) whether each client is flagged in this round."""
        flagged, aggregates = np.zeros(round_.n, dtype=bool), []
        for clients, guard in zip(self.members, self.guards, strict=True):
            outcome = guard.process(round_.take(clients))
            flagged[clients] |= outcome.suspects | outcome.banned
            aggregates.append(torch.as_tensor(outcome.aggregate))
        if len(self.members) > 2:
            region = Round(
                torch.stack(aggregates),
                index=round_.index,
                client_ids=[f"cohort {k}" for k in range(len(self.members))],
                num_examples=[float(round_.num_examples[c].sum()) for c in self.members],
                global_params=round_.global_params,
                server=round_.server,
            )
            outcome = self.above.process(region)
            for clients, bad in zip(self.members, outcome.suspects | outcome.banned, strict=True):
                flagged[clients] |= bad
        return flagged


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--malicious", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--save", action="store_true")
    args = parser.parse_args()
    found: dict[tuple[str, str, int], list[tuple[float, float]]] = defaultdict(list)
    for attack in ATTACKS:
        for seed in args.seeds:
            plans: dict[tuple[str, int], Plan] = {}
            for round_, bad in rounds(attack, seed, args):
                for how in ("at random",) if attack == "none" else ("at random", "side by side"):
                    for k in COHORTS:
                        key = (how, k)
                        if key not in plans:
                            plans[key] = Plan(dealt(bad, k, how == "side by side", seed))
                        flagged = plans[key].judge(round_)
                        missed = float((~flagged[bad]).mean()) if bad.any() else float("nan")
                        found[attack, how, k].append((missed, float(flagged[~bad].mean())))
        print(
            attack,
            {k: np.round(np.mean(v, 0), 3).tolist() for k, v in found.items() if k[0] == attack},
            flush=True,
        )
    text = page(found, args)
    print(text)
    if args.save:
        FILE.write_text(text, encoding="utf-8")


def page(found: dict[tuple[str, str, int], list[tuple[float, float]]], args: argparse.Namespace) -> str:
    """FNR and FPR of every plan, means over rounds and seeds."""
    many = " | ".join(f"{k} × {args.clients // k}" for k in COHORTS)
    lines = [
        "# A federation judged in cohorts",
        "",
        f"`FEDGUARD_DATA=DATA python benchmarks/cohorts.py --save`: MNIST, β = 0.5, {args.clients} clients, "
        f"{args.malicious} malicious, {args.rounds} rounds, seeds {args.seeds}, undefended. FNR / FPR in "
        "percent, means over rounds and seeds, by cohorts × clients.",
        "",
        f"| attack | malicious clients | {many} |",
        "|---|---|" + "---|" * len(COHORTS),
    ]
    for attack, how in dict.fromkeys((a, h) for a, h, _ in found):
        cells = []
        for k in COHORTS:
            missed, wrong = 100 * np.mean(found[attack, how, k], axis=0)
            cells.append(f"{'–' if np.isnan(missed) else f'{missed:.0f}'} / {wrong:.1f}")
        lines.append(f"| {attack} | {'–' if attack == 'none' else how} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
