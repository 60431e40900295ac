"""Ten thousand rounds with ever new ids: a guard's state must stop growing."""

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

#: Even cheaper parameters, as the size of the state does not depend on the quality of detection.
TINY = {"fedredefense": {"first_iterations": 1, "later_iterations": 1, "num_images": 1, "inner_steps": 1}}
#: Number of new ids per round, besides one client that stays.
SYBILS = 3


class Growth(NamedTuple):
    """The size of the state of a guard with one detector, ledger included.

    Attributes:
        detector: its name.
        rounds: number of rounds processed.
        ids: number of clients seen.
        half: bytes of its state after half of the rounds.
        end: bytes of its state at the end.
    """

    detector: str
    rounds: int
    ids: int
    half: int
    end: int

    @property
    def bounded(self) -> bool:
        """Whether it has stopped growing; 5 % allow for the longer text of larger numbers."""
        return self.end <= 1.05 * self.half


def soak(detector: str, rounds: int = 10_000) -> Growth:
    """Run one guard on many rounds with ever new ids.

    Args:
        detector: a registered name.
        rounds: number of rounds; half of them must have more ids than ``fedguard.core.history.MAX_CLIENTS``.
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
    """Return the names of detectors that keep state between rounds."""
    return [name for name in detectors.names() if detectors.get(name).commit is not Detector.commit]


def table(found: list[Growth]) -> str:
    """Return the sizes as a Markdown table."""
    lines = [
        f"Ever new ids, of which {history.MAX_CLIENTS:,} at most are kept. State and ledger of a guard with "
        "one detector:",
        "",
        "| detector | rounds | ids | bytes at half-time | bytes at the end |",
        "|---|---|---|---|---|",
        *(f"| {g.detector} | {g.rounds:,} | {g.ids:,} | {g.half:,} | {g.end:,} |" for g in found),
    ]
    return "\n".join(lines) + "\n"
