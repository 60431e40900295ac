"""What a guard decided on a round."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..core.ids import ClientId
from .table import table_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the guard decided about a round; arrays are aligned with ``client_ids``.

    Attributes:
        aggregate: (d,) the update to add to the global model; zeros if nobody was let through.
        weights: (n,) in [0, 1], what each client was allowed to contribute.
        suspects: (n,) bool, who is called malicious in this round.
        banned: (n,) bool, whose ban is in force from this round on.
        reasons: one phrase for every client.
        client_ids: the clients of the round.
        scores: (n,) suspicion, higher = more suspicious: the detector's own score if there is one
            detector, the mean rank in [0, 1] if there are several, NaN if there is none; +Inf for an
            unusable update, NaN for a client that was not scored because its ban is in force.
        by_detector: each detector's scores, by name; +Inf and NaN as in ``scores``.
        info: numbers that the detectors report, by detector.
        kept_global: True if nobody was let through, so that the global model stays.
        note: that, and whatever else is unusual about the round, in words; empty if nothing is.
        seconds: wall time of each part: one entry per detector, ``"policy"`` and ``"aggregator"``.
        barred: (n,) bool, whose ban was in force already: they were not looked at.
        index: the number of the round.
    """

    aggregate: Tensor
    weights: NDArray[np.float64]
    suspects: NDArray[np.bool_]
    banned: NDArray[np.bool_]
    reasons: tuple[str, ...]
    client_ids: tuple[ClientId, ...]
    scores: NDArray[np.float64]
    by_detector: Mapping[str, NDArray[np.float64]]
    info: Mapping[str, Mapping[str, float]]
    kept_global: bool
    note: str
    seconds: Mapping[str, float]
    barred: NDArray[np.bool_]
    index: int = 0

    def __repr__(self) -> str:
        """A table: every client's score, weight and reason; see :func:`fedguard.contracts.table.table_of`."""
        return table_of(self)

    def take(self, order: NDArray[np.intp]) -> Outcome:
        """The same outcome with its clients in another order."""
        return dataclasses.replace(
            self,
            weights=self.weights[order],
            suspects=self.suspects[order],
            banned=self.banned[order],
            reasons=tuple(self.reasons[i] for i in order),
            client_ids=tuple(self.client_ids[i] for i in order),
            scores=self.scores[order],
            by_detector={name: values[order] for name, values in self.by_detector.items()},
            barred=self.barred[order],
        )
