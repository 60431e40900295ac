"""What is kept of a round."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ClientRow(NamedTuple):
    """One client in one round.

    Attributes:
        client: which client of the federation.
        id: the id it goes by; another one after a banned attacker has come back.
        malicious: whether it is one of the malicious clients; None if nobody knows (a live recording).
        attacking: whether it attacked in this round: its schedule did not let it wait, and it sent something
            else than its honest update.
        participated: whether it was asked.
        score: what the guard's detectors said, NaN if nothing.
        suspect: whether it was called malicious in this round.
        weight: what it was allowed to contribute.
        banned: whether a ban is in force from this round on.
        reason: why.
    """

    client: int
    id: str
    malicious: bool | None
    attacking: bool
    participated: bool
    score: float
    suspect: bool
    weight: float
    banned: bool
    reason: str


@dataclass(frozen=True)
class RoundRecord:
    """What happened in one round.

    Attributes:
        index: the round.
        clients: one row for every client of the federation, present or not.
        tacc: accuracy of the new global model on the test set.
        loss: its mean cross-entropy there.
        asr: attack success rate; NaN if the attack has no target.
        note: what is worth saying, for example that everybody was excluded.
        info: numbers that detectors report, by detector.
        seconds: wall time of training, each detector, the policy and the aggregator.
    """

    index: int
    clients: list[ClientRow]
    tacc: float
    loss: float
    asr: float
    note: str
    info: dict[str, dict[str, float]]
    seconds: dict[str, float]
