"""Records of rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class ClientRow(NamedTuple):
    """One client in one round.

    Attributes:
        client: the client's number in the federation.
        id: its current id; a banned attacker that comes back has a new one.
        malicious: whether it is one of the malicious clients; None if unknown (a live recording).
        attacking: whether it attacked in this round: its schedule said so, and its update was not the
            honest one.
        participated: whether the server got an update from it.
        score: the score of the guard's detectors; NaN if it was not scored.
        suspect: whether it was a suspect in this round.
        weight: its weight in the aggregate.
        banned: whether it is banned from this round on.
        reason: the reason for the verdict.
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
    """The record of one round.

    Attributes:
        index: the round.
        clients: one row for every client of the federation, present or not.
        tacc: accuracy of the new global model on the test set.
        loss: its mean loss there: cross-entropy, binary cross-entropy or squared error by the data's task; of
            a generative model, the sum of both networks'.
        asr: attack success rate; NaN if the attack has no target.
        note: a remark, for example that all clients were excluded.
        info: numbers that detectors report, by detector; under "leak" what a passive attack reconstructed,
            under "generation" how good a generative model's samples are.
        seconds: wall time of training, each detector, the policy and the aggregator.
        finite: False if the run has diverged: the new global model, its loss or every honest update is
            not finite.
    """

    index: int
    clients: list[ClientRow]
    tacc: float
    loss: float
    asr: float
    note: str
    info: dict[str, dict[str, float]]
    seconds: dict[str, float]
    finite: bool = True
