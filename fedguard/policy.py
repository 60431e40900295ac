"""Policies: from scores, suspects and the ledger to what each client may contribute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from .card import Method
from .errors import ContractError, ParameterError
from .ledger import Ledger
from .round import ClientId
from .rules import Rule
from .scores import Scores
from .state import State

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .detector import Detector


#: How several detectors agree on a suspect.
Vote: TypeAlias = Literal["any", "majority", "all"]


def _trained(position: int) -> bool:
    """Where nobody has looked, nobody sent zeros."""
    return False


@dataclass(frozen=True, eq=False)
class Case:
    """Everything that a policy may look at: no updates, no truth.

    Attributes:
        index: the number of the round.
        client_ids: the n clients that were scored.
        scores: what each detector said, by the detector's name; empty if nobody could be scored.
        ledger: the past of these clients; read only.
        idle: whether the client at a position sent nothing but zeros, as one does that did not train.
    """

    index: int
    client_ids: tuple[ClientId, ...]
    scores: Mapping[str, Scores]
    ledger: Ledger
    idle: Callable[[int], bool] = _trained


@dataclass(frozen=True, eq=False)
class Decision:
    """A policy's answer for the n clients of a case.

    Attributes:
        weights: (n,) in [0, 1]; 0 excludes.
        suspects: (n,) bool.
        reasons: n phrases, one for every client, excluded or not.
        bans: position → first round in which the client may return (None: never).
        plain: True makes this round plain FedAvg: no stages, the mean instead of the aggregator.
        strikes: (n,) bool, whose suspicion the ledger counts; that of every suspect if absent.
        note: what the outcome should say about the round, in words.
    """

    weights: NDArray[np.float64]
    suspects: NDArray[np.bool_]
    reasons: tuple[str, ...]
    bans: dict[int, int | None] = field(default_factory=dict)
    plain: bool = False
    strikes: NDArray[np.bool_] | None = None
    note: str = ""


def checked(decision: Decision, policy: str, n: int) -> Decision:
    """A policy's answer for n clients with plain arrays and numbers.

    Raises:
        ContractError: it is no answer for each of the n clients.
    """
    weights = np.asarray(decision.weights, dtype=np.float64)
    suspects = np.asarray(decision.suspects, dtype=bool)
    strikes = suspects if decision.strikes is None else np.asarray(decision.strikes, dtype=bool)
    if weights.shape != (n,) or not ((weights >= 0) & (weights <= 1)).all():
        problem = f"weights that are not {n} numbers in [0, 1]"
    elif suspects.shape != (n,):
        problem = f"suspects of shape {suspects.shape} for {n} clients"
    elif strikes.shape != (n,) or (strikes & ~suspects).any():
        problem = f"strikes that are not {n} truth values, or are against clients that are no suspects"
    elif len(decision.reasons) != n or not all(decision.reasons):
        problem = "no reason for every client"
    elif not all(0 <= k < n for k in decision.bans):
        problem = f"bans of positions {sorted(decision.bans)}, but there are {n} clients"
    else:
        bans = {int(k): None if until is None else int(until) for k, until in decision.bans.items()}
        words, plain = tuple(decision.reasons), bool(decision.plain)
        return Decision(weights, suspects, words, bans, plain, strikes, str(decision.note))
    raise ContractError(f"policy {policy} returned {problem}")


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


class Sentence(NamedTuple):
    """What one more suspicion earns a client.

    Attributes:
        ban: whether it is banned from this round on.
        until: the first round in which it may come back; None means never.
        text: the beginning of the reason; empty if there is nothing to add.
    """

    ban: bool = False
    until: int | None = None
    text: str = ""


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
    def decide(self, case: Case) -> Decision:
        """Weights, suspects, bans and a reason for every client."""

    def sentence(self, client: ClientId, index: int, ledger: Ledger) -> Sentence:
        """What a client earns that is a suspect in this round; the guard asks it for unusable updates."""
        return Sentence()

    def check(self, detectors: Mapping[str, Detector]) -> None:
        """Refuse detectors that the policy cannot work with (ParameterError); called once, at set-up."""

    def commit_unusable(self, clients: Sequence[ClientId], index: int) -> None:
        """Remember who has sent an unusable update in a round, where ``sentence`` depends on it."""

    def commit(self, case: Case, decision: Decision) -> None:
        """Remember what later rounds need, once a round is decided; the ledger keeps most of it."""
        self.rule.commit(case.scores)

    def state_dict(self) -> State:
        """Everything that ``commit`` has remembered; a snapshot."""
        return self.rule.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that ``state_dict`` returned."""
        self.rule.load_state_dict(state)

    def suspects(self, case: Case) -> tuple[NDArray[np.bool_], tuple[str, ...]]:
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
