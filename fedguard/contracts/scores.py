"""What a detector says about a round."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from ..core.deprecation import Renamed, renamed_keywords
from ..core.ties import levels

if TYPE_CHECKING:
    from numpy.typing import NDArray


#: Why a client is a suspect that no detector has looked at.
UNUSABLE = "its update cannot be used"


@renamed_keywords(why="reason")
@dataclass(frozen=True, eq=False)
class Scores:
    """Suspicion per client; **higher is more suspicious**, always.

    Attributes:
        values: (n,) float64. +Inf is allowed (more suspicious than any number), NaN is not.
        suspects: (n,) bool, who the paper's own decision rule calls malicious; None if it has no rule.
        why: one phrase that says what makes a client a suspect, for example
            ``"reconstruction error above 0.6"``; it goes into the reason of every verdict.
        weights: (n,) in [0, 1], for methods that weight clients instead of excluding them.
        info: numbers worth reporting about the round (iterations used, threshold found …).
        memory: what ``Detector.commit`` folds into the detector's state if the round is accepted.
        reasons: n phrases, for methods whose suspects differ in what makes them one: where a suspect's is
            not empty, it takes the place of ``why``.
    """

    values: NDArray[np.float64]
    suspects: NDArray[np.bool_] | None = None
    reason: str = ""
    weights: NDArray[np.float64] | None = None
    info: dict[str, float] = field(default_factory=dict)
    memory: Any = None
    reasons: tuple[str, ...] | None = None

    why = Renamed("reason")

    def spread(self, clients: NDArray[np.bool_]) -> Scores:
        """Scores of a part of the clients as scores of all; those left out are suspects with +Inf."""

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
        )


def filled(
    n: int, index: NDArray[np.intp], values: NDArray[np.float64], rest: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) ``values`` at the positions ``index``, ``rest`` everywhere else."""
    whole = np.full(n, rest, dtype=np.float64)
    whole[index] = values
    return whole


def combined(
    scores: Mapping[str, Scores], judged: NDArray[np.intp], unscored: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(n,) the one detector's scores, or the mean rank in [0, 1] of several; ``unscored`` elsewhere."""
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
        [(rankdata(levels(v, slack)) - 1) / max(n - 1, 1) for v in values], axis=0
    )
    return shares
