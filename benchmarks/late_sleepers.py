"""Can a client's own history tell when it turns malicious late? Detection against false alarms.

FEDGUARD_DATA=DATA python benchmarks/late_sleepers.py [digits|mnist]

Clients behave for 5 or 15 rounds, then turn their updates around or flip labels; shadow mode, 20 clients of
which 6 (β = 0.5) or 9 (β = 0.1) attack, 20 rounds. Three statistics of the recommended detector's deviations
z: this round's z, its mean over 8 rounds, and the change, which is this round's z less the client's own mean
over its 8 rounds before. A threshold is the value that 5, 1 or 0.2 % of the honest clients and rounds exceed
in federations without an attack; for "any signal" every signal has its own, at a quarter of that share.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from typing import Any

import numpy as np
import torch
from leaderboard import BASE, LARGER
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.round import Round
from fedguard.core.ids import ClientId
from fedguard.detectors._calibration import KINDS
from fedguard.detectors.recommended import Memory, Recommended
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.shadow import Shadow

ROUNDS, WINDOW, LEAST = 20, 8, 3
STARTS = (5, 15)
ATTACKS = {"byzantine": {"name": "byzantine", "mode": "flip"}, "label_flip": {"name": "label_flip"}}
PLACES = ((0.5, 6), (0.1, 9))
SEEDS = (24, 25)
SHARES = (0.05, 0.01, 0.002)
STATISTICS = ("this round", "mean over 8 rounds", "change")

Table = NDArray[np.float64]


class Listener(Recommended):
    """The recommended detector, which keeps the clients and signals of every round."""

    card = Card("listener", "the signals of the recommended detector", "FedGuard")

    def __init__(self) -> None:
        super().__init__(pseudo_clients=True)
        self.heard: list[tuple[tuple[ClientId, ...], dict[str, Table]]] = []

    def measure(self, round: Round) -> tuple[dict[str, Table], Memory]:
        """Measure, and keep a copy."""
        signals, memory = super().measure(round)
        self.heard.append((round.client_ids, signals))
        return signals, memory


def suite(data: str, beta: float, malicious: int, attack: str, start: int) -> Suite:
    """Federations with a listener."""
    settings: dict[str, Any] = {**BASE, **({} if data == "digits" else LARGER), "rounds": ROUNDS}
    spec = {**ATTACKS[attack], "schedule": {"start": start}} if attack != "none" else "none"
    return Suite(
        name="sleepers",
        data=data,
        **settings,
        malicious=malicious if attack != "none" else 0,
        partition={"name": "dirichlet", "beta": beta},
        seeds=list(SEEDS),
        attacks=[spec],
        defenses={"listener": {"detector": {"name": "late_sleepers:Listener"}}},
    )


def observed(one: Suite) -> list[tuple[Table, NDArray[np.bool_]]]:
    """Per round: (n, 3, 4) statistics by client and signal, and whether the client attacked."""
    found = []
    for cell in one.cells():
        shadow = Shadow([cell])
        shadow.run()
        watcher = shadow.watchers[0]
        if watcher.error:
            raise SystemExit(watcher.error)
        (listener,) = watcher.guard.detectors.values()
        past: dict[ClientId, list[Table]] = defaultdict(list)
        heard = listener.heard  # type: ignore[attr-defined]
        for record, (ids, signals) in zip(watcher.records, heard, strict=True):
            attacking = {str(row.id): row.attacking for row in record.clients}
            now = np.stack([signals[kind] for kind in KINDS], axis=1)
            mean = np.stack([signals[f"{kind} over rounds"] for kind in KINDS], axis=1)
            known = np.array([len(past[client]) >= LEAST for client in ids])
            if known.any():
                before = np.array([np.mean(past[client][-WINDOW:], axis=0) for client in ids])
                change = now - before
                values = np.stack([now, mean, change - np.median(change, axis=0)], axis=1)
                found.append((values[known], np.array([attacking[str(client)] for client in ids])[known]))
            for client, row in zip(ids, now, strict=True):
                past[client].append(row)
    return found


def detected(values: Table, clean: Table, share: float) -> Table:
    """(3, 5) the share of rows above each signal's threshold, and above any of a quarter of the share."""
    result = np.empty((len(STATISTICS), len(KINDS) + 1))
    for k in range(len(STATISTICS)):
        limits = np.quantile(clean[:, k], 1 - share, axis=0)
        result[k, :-1] = (values[:, k] > limits).mean(axis=0)
        together = np.quantile(clean[:, k], 1 - share / len(KINDS), axis=0)
        result[k, -1] = (values[:, k] > together).any(axis=1).mean()
    return 100 * result


def main() -> None:
    """Print a table per data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data", nargs="*", default=["digits", "mnist"], help="data sets; all by default")
    torch.set_num_threads(1)
    for data in parser.parse_args().data:
        clean = np.concatenate(
            [values for beta, m in PLACES for values, _ in observed(suite(data, beta, m, "none", 0))]
        )
        print(f"\n## {data}: {len(clean):,} honest clients and rounds without an attack\n")
        print(
            "| attack | from round | statistic | false alarms, % | "
            + " | ".join((*KINDS, "any signal"))
            + " |"
        )
        print("|:--|--:|:--|--:|" + "--:|" * (len(KINDS) + 1))
        for attack in ATTACKS:
            for start in STARTS:
                rounds = [one for beta, m in PLACES for one in observed(suite(data, beta, m, attack, start))]
                active = np.concatenate([values[attacked] for values, attacked in rounds])
                for share in SHARES:
                    for name, row in zip(STATISTICS, detected(active, clean, share), strict=True):
                        shown = " | ".join(f"{value:.0f}" for value in row)
                        print(f"| {attack} | {start} | {name} | {100 * share:g} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
