"""The input and the output of a policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..core.errors import ContractError
from ..core.ids import ClientId
from ..ledger.memory import Ledger
from .scores import Scores

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _not_idle(position: int) -> bool:
    """The default if no updates are at hand: no client sent zeros."""
    return False


@dataclass(frozen=True, eq=False)
class PolicyInput:
    """Everything that a policy may use: no updates and no ground truth.

    Attributes:
        index: the number of the round.
        client_ids: the n clients that were scored.
        scores: detector name → its scores; empty if no client could be scored.
        ledger: the history of these clients; read-only.
        idle: whether the client at a position sent an update of zeros, as a client that did not train does.
    """

    index: int
    client_ids: tuple[ClientId, ...]
    scores: Mapping[str, Scores]
    ledger: Ledger
    idle: Callable[[int], bool] = _not_idle

    def excuse(self, position: int) -> str:
        """Why a suspicion of a client counts neither as a strike nor as evidence; empty if it counts."""
        if self.idle(position):
            return "its update is zero"
        against = [s for s in self.scores.values() if s.suspects is not None and s.suspects[position]]
        framed = bool(against) and all(s.framed is not None and s.framed[position] for s in against)
        return "another client can have caused the suspicion" if framed else ""


@dataclass(frozen=True, eq=False)
class Decision:
    """A policy's decision on n clients.

    Attributes:
        weights: (n,) in [0, 1]; 0 excludes a client.
        suspects: (n,) bool.
        reasons: n phrases, one for every client, excluded or not.
        bans: position → first round in which the client may return; None for a permanent ban.
        plain: True makes this round plain FedAvg: no stages, the mean instead of the aggregator.
        strikes: (n,) bool, the suspects that get a strike in the ledger; all suspects by default.
        note: a remark on the round for ``Outcome.note``.
    """

    weights: NDArray[np.float64]
    suspects: NDArray[np.bool_]
    reasons: tuple[str, ...]
    bans: dict[int, int | None] = field(default_factory=dict)
    plain: bool = False
    strikes: NDArray[np.bool_] | None = None
    note: str = ""

    def restarts(self, scores: Scores) -> bool:
        """Whether a detector asks for the initial model and one of its suspects is excluded."""
        asked = scores.restart and scores.suspects is not None
        return asked and bool((self.weights[scores.suspects] == 0).any())


def checked(decision: Decision, policy: str, n: int) -> Decision:
    """The decision with plain NumPy arrays and Python numbers.

    Raises:
        ContractError: it does not decide on each of the n clients.
    """
    weights = np.asarray(decision.weights, dtype=np.float64)
    suspects = np.asarray(decision.suspects, dtype=bool)
    strikes = suspects if decision.strikes is None else np.asarray(decision.strikes, dtype=bool)
    if weights.shape != (n,) or not ((weights >= 0) & (weights <= 1)).all():
        problem = f"weights that are not {n} numbers in [0, 1]"
    elif suspects.shape != (n,):
        problem = f"suspects of shape {suspects.shape} for {n} clients"
    elif strikes.shape != (n,) or (strikes & ~suspects).any():
        problem = f"strikes that are not {n} booleans, or are against clients that are not suspects"
    elif len(decision.reasons) != n or not all(decision.reasons):
        problem = "no reason for every client"
    elif not all(0 <= k < n for k in decision.bans):
        problem = f"bans of positions {sorted(decision.bans)}, but there are {n} clients"
    else:
        bans = {int(k): None if until is None else int(until) for k, until in decision.bans.items()}
        words, plain = tuple(decision.reasons), bool(decision.plain)
        return Decision(weights, suspects, words, bans, plain, strikes, str(decision.note))
    raise ContractError(f"policy {policy} returned {problem}")


class Sanction(NamedTuple):
    """A policy's response to one more suspicion of a client.

    Attributes:
        ban: whether the client is banned from this round on.
        until: the first round in which it may return; None for a permanent ban.
        text: a prefix for the reason; may be empty.
    """

    ban: bool = False
    until: int | None = None
    text: str = ""
