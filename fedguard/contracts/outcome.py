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
    """What the guard decided on a round; arrays are aligned with ``client_ids``.

    Attributes:
        aggregate: (d,) the update to add to the global model; zeros if no client was accepted.
        weights: (n,) in [0, 1], each client's weight in the aggregate; 0 if excluded.
        suspects: (n,) bool, the clients judged malicious in this round.
        banned: (n,) bool, the clients banned from this round on.
        reasons: one phrase for every client.
        client_ids: the clients of the round.
        scores: (n,) higher is more suspicious: the detector's own score if there is one detector, the mean
            rank in [0, 1] if there are several, NaN if there is none. +Inf for an unusable update, NaN for a
            client that was already banned and so was not scored.
        by_detector: detector name → its (n,) scores; +Inf and NaN as in ``scores``.
        info: detector name → the numbers that it reports.
        kept_global: True if no client was accepted, so that the global model stays.
        note: what is unusual about the round, in words; empty if nothing is.
        seconds: wall time per part: one entry per detector, ``"policy"`` and ``"aggregator"``.
        barred: (n,) bool, the clients that were banned before this round and so were not scored.
        index: the number of the round.
        restart: True if a detector asks for a new start from the initial model. A simulation follows it;
            with your own server, replace the global model by the initial one instead of adding the aggregate.
        counted: (n,) in (0, 1], the share of each client's claimed samples that counts under the guard's
            ``claim_limit``; None counts all in full.

    Example:
        >>> from fedguard import Guard, Round
        >>> Guard().process(Round([[1.0, 2.0], [3.0, 4.0]], client_ids=["ann", "bob"]))
        2 clients, 0 suspects, 0 banned
        client  score  weight  verdict   reason
        ann       nan       1  accepted  observed: no detector
        bob       nan       1  accepted  observed: no detector
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
    restart: bool = False
    counted: NDArray[np.float64] | None = None

    def __repr__(self) -> str:
        """A table of all clients' scores, weights and reasons (:func:`fedguard.contracts.table.table_of`)."""
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
            counted=None if self.counted is None else self.counted[order],
        )
