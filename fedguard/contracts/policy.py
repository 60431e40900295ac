"""Policies: from scores, suspects and the ledger to what each client may contribute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from ..core.errors import ParameterError
from ..core.ids import ClientId
from ..core.state import State
from ..ledger.memory import Ledger
from .card import Method
from .decision import Decision, PolicyInput, Sanction
from .rules import Rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .detector import Detector


#: How several detectors agree on a suspect.
Vote: TypeAlias = Literal["any", "majority", "all"]


def against_most(suspects: NDArray[np.bool_], max_share: float = 0.5) -> str:
    """Says so in words if more than ``max_share`` of the clients are suspects; empty if not."""
    found, n = int(suspects.sum()), len(suspects)
    if found <= max_share * n:
        return ""
    return (
        f"{found} of {n} clients are suspects, more than {'half' if max_share == 0.5 else f'{max_share:.0%}'}"
    )


def check_share(policy: str, max_share: float) -> None:
    """Refuse a ``max_share`` that is no share (ParameterError)."""
    if not 0 < max_share <= 1:
        raise ParameterError(f"{policy}: max_share is {max_share}; use a share in (0, 1], say 0.5")


class Policy(Method, ABC):
    """Decides on each client of a round. What it must remember of clients is in the ledger.

    Args:
        rule: how a detector's scores become suspects; the detector's own decision by default.
        vote: with several detectors, a client is a suspect if "any" of them suspects it, more than half
            of them ("majority"), or "all".

    Raises:
        ParameterError: an unknown rule or vote.
    """

    #: True if the policy labels clients for good, so that end-of-run labels mean something.
    bans: bool = False
    #: How many strikes of a client it may have to find in the ledger.
    lookback: int = 0

    def __init__(self, rule: str | dict[str, Any] = "native", vote: Vote = "any") -> None:
        if vote not in ("any", "majority", "all"):
            raise ParameterError(f"{self.name}: vote is {vote!r}; use 'any', 'majority' or 'all'")
        self.rule = Rule(rule)
        self.vote = vote

    @abstractmethod
    def decide(self, case: PolicyInput) -> Decision:
        """Weights, suspects, bans and a reason for every client."""

    def sentence(self, client: ClientId, index: int, ledger: Ledger) -> Sanction:
        """What a client earns that is a suspect in this round; the guard asks it for unusable updates."""
        return Sanction()

    def check(self, detectors: Mapping[str, Detector]) -> None:
        """Refuse detectors that the policy cannot work with (ParameterError); called once, at set-up."""

    def commit_unusable(self, clients: Sequence[ClientId], index: int) -> None:
        """Remember who has sent an unusable update in a round, where ``sentence`` depends on it."""

    def commit(self, case: PolicyInput, decision: Decision) -> None:
        """Remember what later rounds need, once a round is decided; the ledger keeps most of it."""
        self.rule.commit(case.scores)

    def state_dict(self) -> State:
        """Everything that ``commit`` has remembered; a snapshot."""
        return self.rule.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that ``state_dict`` returned."""
        self.rule.load_state_dict(state)

    def suspects(self, case: PolicyInput) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
        """(n,) whom the detectors vote to suspect, and a phrase for every client: which detector, and why."""
        n = len(case.client_ids)
        votes = np.zeros(n, dtype=int)
        phrases: list[list[str]] = [[] for _ in range(n)]
        for name, scores in case.scores.items():
            flagged, why = self.rule(scores, name)
            votes += flagged
            own = scores.reasons if self.rule.name == "native" else None
            for i in range(n):
                text = f"{name} score {scores.values[i]:.4g}"
                phrases[i].append(f"{text}: {(own and own[i]) or why}" if flagged[i] else text)
        needed = {"any": 1, "majority": len(case.scores) // 2 + 1, "all": max(1, len(case.scores))}
        return votes >= needed[self.vote], tuple("; ".join(p) or "no detector" for p in phrases)
