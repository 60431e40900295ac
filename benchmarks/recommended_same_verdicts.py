"""The recommended detector's gradients as products, or written out: do scores and verdicts stay the same?

FEDGUARD_DATA=DATA python benchmarks/recommended_same_verdicts.py [digits|mnist|cnn] [--seeds 20 21 22]

Both versions judge the same rounds of the federations of pseudo_clients.yaml: no attack and the eight that
limits were chosen with, β = 0.5 with 6 and 0.1 with 9 malicious of 20. ``cnn`` is MNIST with FedREDefense's
network, in five rounds.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import yaml
from leaderboard import LARGER
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.data import LabeledData
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.detectors import _beside_pseudo_clients
from fedguard.detectors._generators import generators
from fedguard.detectors._label_gradients import Written
from fedguard.detectors.recommended import Recommended
from fedguard.evaluation.suites.suite import Suite
from fedguard.simulation.shadow import Shadow

SUITE = Path(__file__).with_name("pseudo_clients.yaml")
PLACES = ("digits", "mnist", "cnn")


class Products(Recommended):
    """The recommended detector with pseudo-clients, which keeps its scores."""

    card = Card("products", "the recommended detector", "FedGuard")

    def __init__(self) -> None:
        super().__init__(pseudo_clients=True)
        self.heard: list[Scores] = []

    def score(self, round: Round) -> Scores:
        """Score, and keep a copy."""
        scores = super().score(round)
        self.heard.append(scores)
        return scores


class WrittenOut(Products):
    """The same with all gradients written out."""

    card = Card("written_out", "the recommended detector with gradients written out", "FedGuard")

    def score(self, round: Round) -> Scores:
        """Score, and keep a copy."""
        with patch.object(_beside_pseudo_clients, "label_gradients", _written):
            return super().score(round)


def _written(model: torch.nn.Module, start: torch.Tensor, data: LabeledData) -> Written | None:
    found = generators(model, start, data)
    return None if found is None else Written(found)


def suite(place: str, seeds: list[int]) -> Suite:
    """The federations of pseudo_clients.yaml with both versions."""
    settings: dict[str, Any] = yaml.safe_load(SUITE.read_text())
    settings |= {"name": "verdicts", "seeds": seeds}
    if place != "digits":
        settings |= {"data": "mnist", "training": {**LARGER["training"]}}
    if place == "cnn":
        settings |= {"model": "fedredefense_fmnist_cnn", "rounds": 5}
    versions = ("Products", "WrittenOut")
    settings["defenses"] = {
        name: {"detector": {"name": f"recommended_same_verdicts:{name}"}} for name in versions
    }
    return Suite(**settings)


def compared(one: Suite) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(2, rows) the scores of both versions, in units of the limit, and whom they suspect."""
    cells, values, suspects = one.cells(), [], []
    for first, second in zip(cells[::2], cells[1::2], strict=True):
        shadow = Shadow([first, second])
        shadow.run()
        heard = []
        for watcher in shadow.watchers:
            if watcher.error:
                raise SystemExit(watcher.error)
            (detector,) = watcher.guard.detectors.values()
            heard.append(detector.heard)  # type: ignore[attr-defined]
        values.append([np.concatenate([scores.values for scores in side]) for side in heard])
        suspects.append([np.concatenate([scores.suspects for scores in side]) for side in heard])
    return np.concatenate(values, axis=1), np.concatenate(suspects, axis=1)


def main() -> None:
    """Print a line per place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("places", nargs="*", default=list(PLACES), help="all by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22])
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| federations | clients and rounds | suspects | other verdicts | largest difference of scores |")
    print("|:--|--:|--:|--:|--:|")
    for place in args.places:
        (ours, theirs), (now, before) = compared(suite(place, args.seeds))
        moved = np.abs(ours - theirs) / np.maximum(np.abs(theirs), 1)
        print(
            f"| {place} | {len(ours):,} | {before.sum():,} | {(now != before).sum()} | {moved.max():.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
