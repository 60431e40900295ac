"""Policies: turn scores and the ledger into suspects, weights and bans."""

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


#: How the votes of several detectors are combined.
Vote: TypeAlias = Literal["any", "majority", "all"]


def against_most(suspects: NDArray[np.bool_], max_share: float = 0.5) -> str:
    """A remark if more than ``max_share`` of the clients are suspects; otherwise empty."""
    found, n = int(suspects.sum()), len(suspects)
    if found <= max_share * n:
        return ""
    return (
        f"{found} of {n} clients are suspects, more than {'half' if max_share == 0.5 else f'{max_share:.0%}'}"
    )


def check_share(policy: str, max_share: float) -> None:
    """Raise ParameterError unless ``max_share`` is in (0, 1]."""
    if not 0 < max_share <= 1:
        raise ParameterError(f"{policy}: max_share is {max_share}; use a share in (0, 1], say 0.5")


class Policy(Method, ABC):
    """Decides on each client of a round. The ledger holds the clients' history.

    Args:
        rule: turns a detector's scores into suspects; by default the detector's own decision rule.
        vote: with several detectors, a client is a suspect if "any", a "majority" or "all" of them suspect
            it.

    Raises:
        ParameterError: the rule or the vote is unknown.

    Example:
        >>> from fedguard import Card, Decision, Policy
        >>> class Halve(Policy):
        ...     card = Card("halve", "suspects contribute half", "FedGuard")
        ...     def decide(self, case):
        ...         suspects, reasons = self.suspects(case)
        ...         return Decision(weights=1 - 0.5 * suspects, suspects=suspects, reasons=reasons)
        >>> Halve(rule="mad").vote
        'any'
    """

    #: True if the policy bans clients, so that final labels are meaningful.
    bans: bool = False
    #: The largest number of a client's strikes that it counts in the ledger.
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
        """The sanction for a client that is a suspect in this round; the guard asks for unusable updates."""
        return Sanction()

    def check(self, detectors: Mapping[str, Detector]) -> None:
        """Raise ParameterError if the policy cannot use these detectors; called once, at set-up."""

    def commit_unusable(self, clients: Sequence[ClientId], index: int) -> None:
        """Store which clients sent an unusable update in a round, if ``sentence`` depends on it."""

    def commit(self, case: PolicyInput, decision: Decision) -> None:
        """Store what later rounds need, after a round is decided; the ledger holds most of it."""
        self.rule.commit(case.scores)

    def state_dict(self) -> State:
        """A snapshot of everything that ``commit`` has stored."""
        return self.rule.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""
        self.rule.load_state_dict(state)

    def suspects(self, case: PolicyInput) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
        """(n,) the suspects by vote of the detectors, and for every client a reason that names them."""
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
