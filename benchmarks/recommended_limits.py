"""What honest clients reach in each signal of pseudo-clients: where its limit comes from.

FEDGUARD_DATA=DATA python benchmarks/recommended_limits.py [digits|mnist]

Clean federations: 10, 20 and 40 clients for 12 rounds, and 20 clients for 40 rounds, in which the models fit
the clients' data. Per signal: quantiles over clients and rounds, and the share beyond the limit.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
import torch
from leaderboard import BASE, LARGER
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.round import Round
from fedguard.detectors._calibration import KINDS
from fedguard.detectors.recommended import LIMITS, Memory, Recommended
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.shadow import Shadow

SEEDS = {"digits": [24, 25, 26], "mnist": [23, 24]}
#: Clients, rounds, and skews. In digits, 40 clients of β = 0.1 cannot all have ten samples.
SHORT = [(20, 12, [0.1, 0.5, 100.0]), (10, 12, [0.1, 0.5, 100.0]), (40, 12, [0.5, 100.0])]
LONG = [(20, 40, [0.1, 0.5, 1000.0])]
QUANTILES = [0.995, 0.998, 0.999, 1.0]
SIGNALS = (*KINDS, "copies")


class Listener(Recommended):
    """The recommended detector, which keeps every signal that it measures."""

    card = Card("listener", "the signals of the recommended detector", "FedGuard")

    def __init__(self) -> None:
        super().__init__(pseudo_clients=True)
        self.heard: list[dict[str, NDArray[np.float64]]] = []

    def measure(self, round: Round) -> tuple[dict[str, NDArray[np.float64]], Memory]:
        """Measure, and keep a copy."""
        signals, memory = super().measure(round)
        self.heard.append(signals)
        return signals, memory


def suite(data: str, clients: int, rounds: int, betas: list[float]) -> Suite:
    """Clean federations with a listener."""
    settings: dict[str, Any] = {**BASE, **({} if data == "digits" else LARGER)}
    settings |= {"rounds": rounds, "clients": clients}
    return Suite(
        name="limits",
        data=data,
        **settings,
        malicious=0,
        partition={"name": "dirichlet", "beta": 0.5},
        seeds=SEEDS[data] if clients == 20 else SEEDS[data][:2],
        grid={"partition.beta": betas},
        attacks=["none"],
        defenses={"listener": {"detector": {"name": "recommended_limits:Listener"}}},
    )


def heard(data: str, places: list[tuple[int, int, list[float]]]) -> list[dict[str, NDArray[np.float64]]]:
    """The signals of every round of all federations."""
    found = []
    for place in places:
        for cell in suite(data, *place).cells():
            shadow = Shadow([cell])
            shadow.run()
            (listener,) = shadow.watchers[0].guard.detectors.values()
            if shadow.watchers[0].error:
                raise SystemExit(shadow.watchers[0].error)
            found += listener.heard  # type: ignore[attr-defined]
    return found


def table(rounds: list[dict[str, NDArray[np.float64]]]) -> str:
    """One row per signal, and the share of clients and rounds beyond any limit."""
    names = [name for name in LIMITS if name.startswith(SIGNALS)]
    lines = ["| signal | " + " | ".join(f"{100 * q:g} %" for q in QUANTILES) + " | limit | beyond, % |"]
    lines.append("|:--|" + "--:|" * (len(QUANTILES) + 2))
    beyond = []
    for name in names:
        values, limit = np.concatenate([one[name] for one in rounds]), LIMITS[name][0]
        beyond.append(values > limit)
        reached = " | ".join(f"{value:.2f}" for value in np.quantile(values, QUANTILES))
        lines.append(f"| {name} | {reached} | {limit:g} | {100 * np.mean(beyond[-1]):.2f} |")
    lines.append(f"| any | {' | ' * len(QUANTILES)} | {100 * np.mean(np.any(beyond, axis=0)):.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Print two tables per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="*", default=list(SEEDS), help="data sets; all by default")
    torch.set_num_threads(1)
    for data in parser.parse_args().data:
        for what, places in (("12 rounds", SHORT), ("40 rounds", LONG)):
            rounds = heard(data, places)
            count = sum(len(one["copies"]) for one in rounds)
            print(f"\n## {data}, {what}: {count:,} honest clients and rounds\n\n{table(rounds)}", flush=True)


if __name__ == "__main__":
    main()
