"""What honest clients reach in each signal of the recommended detector: where its limits come from.

FEDGUARD_DATA=DATA python benchmarks/recommended_limits.py [digits|mnist]

Clean federations of 10, 20 and 40 clients at β = 0.1, 0.5 and 100, 12 rounds, seeds that no published test uses. Per
signal: the quantiles of all clients and rounds, and the share beyond the limit.
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
from fedguard.detectors.recommended import LIMITS, Memory, Recommended
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.shadow import Shadow

SEEDS = {"digits": [24, 25, 26], "mnist": [23, 24]}
#: Number of clients, and skews. In digits, 40 clients of β = 0.1 cannot all have ten samples.
PLACES = [(20, [0.1, 0.5, 100.0]), (10, [0.1, 0.5, 100.0]), (40, [0.5, 100.0])]
QUANTILES = [0.995, 0.998, 0.999, 1.0]
SIGNALS = ("right labels", "any labels", "wrong labels", "length", "copies")


class Listener(Recommended):
    """The recommended detector, which keeps every signal that it measures."""

    card = Card("listener", "the signals of the recommended detector", "FedGuard")

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[dict[str, NDArray[np.float64]]] = []

    def measure(self, round: Round) -> tuple[dict[str, NDArray[np.float64]], Memory]:
        """Measure, and keep a copy."""
        found = super().measure(round)
        self.heard.append(found[0])
        return found


def suite(data: str, clients: int, betas: list[float]) -> Suite:
    """Clean federations with a listener."""
    settings: dict[str, Any] = {
        **BASE,
        **({} if data == "digits" else LARGER),
        "rounds": 12,
        "clients": clients,
    }
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


def heard(data: str) -> list[dict[str, NDArray[np.float64]]]:
    """The signals of every round of all federations."""
    import recommended_limits  # by its name, as suites import it

    found = []
    for clients, betas in PLACES:
        for cell in suite(data, clients, betas).cells():
            shadow = Shadow([cell])
            shadow.run()
            (listener,) = shadow.watchers[0].guard.detectors.values()
            assert isinstance(listener, recommended_limits.Listener), shadow.watchers[0].error
            found += listener.heard
    return found


def main() -> None:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="*", default=list(SEEDS), help="data sets; all by default")
    torch.set_num_threads(1)
    for data in parser.parse_args().data:
        rounds = heard(data)
        print(f"\n{data}: {sum(len(one['copies']) for one in rounds):,} honest clients and rounds\n")
        print("| signal | " + " | ".join(f"{100 * q:g} %" for q in QUANTILES) + " | limit | beyond, % |")
        print("|:--|" + "--:|" * (len(QUANTILES) + 2))
        for name in [name for name in LIMITS if name.startswith(SIGNALS)]:
            values = np.concatenate([one[name] for one in rounds])
            reached = " | ".join(f"{value:.2f}" for value in np.quantile(values, QUANTILES))
            limit = LIMITS[name][0]
            print(f"| {name} | {reached} | {limit:g} | {100 * np.mean(values > limit):.2f} |")


if __name__ == "__main__":
    main()
