"""Ten thousand rounds with ever new ids: what a guard keeps stays as large as it is."""

from __future__ import annotations

import warnings
from typing import NamedTuple

from ..contracts.detector import Detector
from ..contracts.registry import detectors, make_policy
from ..core import history
from ..core.state import pack
from ..core.threads import single_thread
from ..guard import Guard
from ..ledger.memory import Ledger
from .core import require
from .hostile_rounds import CHEAP, draft

#: Cheaper still: what is kept does not depend on how good it is.
TINY = {"fedredefense": {"first_iterations": 1, "later_iterations": 1, "num_images": 1, "inner_steps": 1}}
#: New ids in every round, besides one client that stays.
SYBILS = 3


class Growth(NamedTuple):
    """What a guard with one detector keeps, ledger included.

    Attributes:
        detector: its name.
        rounds: how many it has seen.
        ids: how many clients it has seen.
        half: bytes of its state after half of the rounds.
        end: bytes at the end.
    """

    detector: str
    rounds: int
    ids: int
    half: int
    end: int

    @property
    def bounded(self) -> bool:
        """Whether it has stopped growing; one part in twenty is for the longer text of later numbers."""
        return self.end <= 1.05 * self.half


def soak(detector: str, rounds: int = 10_000) -> Growth:
    """Drive one guard through many rounds with ever new ids.

    Args:
        detector: a registered name.
        rounds: half of them must bring more ids than ``fedguard.core.history.MAX_CLIENTS``.
    """
    cls = detectors.get(detector)
    params = {**cls.check_with, **CHEAP.get(detector, {}), **TINY.get(detector, {})}
    ledger = Ledger(max_clients=history.MAX_CLIENTS)
    guard = Guard(cls(**params), make_policy("exclude", rule="mad"), ledger=ledger)
    sizes = {}
    with single_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index in range(rounds):
            now = draft(seed=index % 50, index=index % 7)
            now.updates = now.rng.normal(size=(SYBILS + 1, len(now.global_params)))
            now.client_ids = ["faithful", *(f"sybil {index:06d} {k}" for k in range(SYBILS))]
            now.num_examples, now.index = None, index
            guard.process(now.build())
            if index + 1 in (rounds // 2, rounds):
                sizes[index + 1] = len(pack(guard.state_dict()))
    require(guard.ledger["faithful"].rounds == rounds, "the client that stays was forgotten")
    return Growth(detector, rounds, 1 + rounds * SYBILS, sizes[rounds // 2], sizes[rounds])


def keeping() -> list[str]:
    """The detectors that remember anything from round to round."""
    return [name for name in detectors.names() if detectors.get(name).commit is not Detector.commit]


def table(found: list[Growth]) -> str:
    """What was kept, as Markdown."""
    lines = [
        f"Ever new ids, of which {history.MAX_CLIENTS:,} at most are kept. State and ledger of a guard with "
        "one detector:",
        "",
        "| detector | rounds | ids | bytes at half-time | bytes at the end |",
        "|---|---|---|---|---|",
        *(f"| {g.detector} | {g.rounds:,} | {g.ids:,} | {g.half:,} | {g.end:,} |" for g in found),
    ]
    return "\n".join(lines) + "\n"
