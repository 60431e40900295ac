"""The result of a detector for one round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.deprecation import Renamed, renamed_keywords
from ..core.ranks import mean_rank
from ..core.ties import levels

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: The reason for suspecting a client whose update no detector can score.
UNUSABLE = "its update cannot be used"


@renamed_keywords(why="reason")
@dataclass(frozen=True, eq=False)
class Scores:
    """Suspicion per client; **higher is always more suspicious**.

    Attributes:
        values: (n,) float64. +Inf is allowed (more suspicious than any number), NaN is not.
        suspects: (n,) bool, the suspects by the paper's own decision rule; None if the paper has no rule.
        reason: one phrase that says why a client is a suspect, for example
            ``"reconstruction error above 0.6"``; it becomes part of the reason of every verdict.
        weights: (n,) in [0, 1], for methods that weight clients instead of excluding them.
        info: numbers to report about the round (iterations used, threshold found, …).
        memory: what ``Detector.commit`` adds to the detector's state if the round is accepted.
        reasons: n phrases, for methods with different reasons for different suspects. A suspect's phrase
            replaces ``reason`` unless it is empty.
        restart: True asks for a new start from the initial model if a suspect of this round is excluded,
            because the model was already poisoned. A guard cannot do it; it sets ``Outcome.restart``.
        framed: (n,) bool, suspects whose suspicion another client can have caused, as one that copies an
            honest client does. They are excluded, but it counts neither as a strike nor as evidence.

    Example:
        >>> import numpy as np
        >>> from fedguard import Scores
        >>> scores = Scores(np.array([0.2, 0.9]), suspects=np.array([False, True]), reason="score above 0.5")
        >>> scores.values.argmax()
        np.int64(1)
    """

    values: NDArray[np.float64]
    suspects: NDArray[np.bool_] | None = None
    reason: str = ""
    weights: NDArray[np.float64] | None = None
    info: dict[str, float] = field(default_factory=dict)
    memory: Any = None
    reasons: tuple[str, ...] | None = None
    restart: bool = False
    framed: NDArray[np.bool_] | None = None

    why = Renamed("reason")

    def spread(self, clients: NDArray[np.bool_]) -> Scores:
        """Extend the scores of some clients (a mask) to all; the others become suspects with score +Inf."""

        def fill(part: NDArray[Any], rest: Any) -> NDArray[Any]:
            whole = np.full(len(clients), rest, dtype=part.dtype)
            whole[clients] = part
            return whole

        return Scores(
            values=fill(self.values, np.inf),
            suspects=None if self.suspects is None else fill(self.suspects, True),
            reason=self.reason,
            weights=None if self.weights is None else fill(self.weights, 0.0),
            info=self.info,
            memory=self.memory,
            reasons=None if self.reasons is None else tuple(fill(np.array(self.reasons, object), UNUSABLE)),
            restart=self.restart,
            framed=None if self.framed is None else fill(self.framed, False),
        )


def filled(
    n: int, index: NDArray[np.intp], values: NDArray[np.float64], rest: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) ``values`` at the positions ``index``, ``rest`` at all others."""
    whole = np.full(n, rest, dtype=np.float64)
    whole[index] = values
    return whole


def combined(
    scores: Mapping[str, Scores], judged: NDArray[np.intp], unscored: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) the scores of a single detector, or the mean rank in [0, 1] over several.

    Args:
        scores: detector name → scores of the judged clients.
        judged: positions of the judged clients.
        unscored: (n,) the values for all other clients, and for all clients without detectors.
    """
    if not scores:
        return unscored
    values = [s.values for s in scores.values()]
    if len(values) == 1:
        return filled(len(unscored), judged, values[0], unscored)
    return filled(len(unscored), judged, mean_ranks(values), unscored)


def mean_ranks(values: Sequence[NDArray[np.float64]], slack: float = 0.0) -> NDArray[np.float64]:
    """(n,) mean over detectors of (rank − 1)/(n − 1), ranks from 1; equal scores share their mean rank.

    Args:
        values: (n,) scores of each detector.
        slack: the relative difference up to which scores are equal, see :func:`fedguard.core.ties.tolerance`.
    """
    n = len(values[0])
    shares: NDArray[np.float64] = np.mean(
        [(mean_rank(levels(v, slack)) - 1) / max(n - 1, 1) for v in values], axis=0
    )
    return shares
