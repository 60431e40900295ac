"""Leave-one-out impacts on the validation error and loss, shared by ERR, LFR and Union."""

from __future__ import annotations

import itertools
import math
from hashlib import blake2b
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from fedguard.aggregators._leave_one_out import leave_one_out, shares_work
from fedguard.contracts.detector import Detector
from fedguard.contracts.registry import make_aggregator
from fedguard.contracts.round import Round
from fedguard.contracts.scores import Scores
from fedguard.contracts.server import AggregationRule
from fedguard.core.errors import NeedError, ParameterError, TooFewClientsError
from fedguard.core.threads import single_thread
from fedguard.training.parameters import BATCH, error_and_loss

from ._ranking import ranks

#: Impacts by round, which ERR, LFR and Union share; kept for stateless rules as long as the round exists.
_KNOWN: WeakKeyDictionary[Round, tuple[NDArray[np.float64], NDArray[np.float64]]] = WeakKeyDictionary()
#: The relative rounding error of a loss in float32.
ROUNDING = 4 * float(np.finfo(np.float32).eps)


class LeaveOneOut(Detector):
    """The base of ERR, LFR and Union: their needs, and c, the number of clients to remove."""

    needs = frozenset({"model", "validation", "global_params"})

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"{self.name}: num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """C + 1, so that at least one client is kept."""
        return (self.num_malicious or 0) + 1


class Impact(LeaveOneOut):
    """The base of ERR and LFR: the c clients with the largest impacts are suspects."""

    #: The position of the impact in what ``impacts`` returns, and its name in reasons.
    measure: ClassVar[int]
    called: ClassVar[str]

    def score(self, round: Round) -> Scores:
        """Score by the impact."""
        impact = impacts(round, self.name)[self.measure]
        why = f"among the {count(round.n, self.num_malicious)} largest {self.called} impacts"
        return Scores(impact, removed(round, impact, self.num_malicious), why)


def impacts(round: Round, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) error impacts E_A − E_B and (n,) loss impacts L_A − L_B of the aggregation rule in use.

    A is the global model after aggregating all clients, B the one without client i. Without the only client
    of a round, the global model does not change.

    Args:
        round: with global parameters, and a server with model and validation data.
        name: the detector, for error messages.

    Raises:
        TooFewClientsError: the aggregation rule is not defined for n − 1 clients.
    """
    server = round.server
    if server is None or server.model is None or server.validation is None or round.global_params is None:
        raise NeedError(f"{name} needs model, validation and global_params")
    aggregator: AggregationRule = server.aggregator or make_aggregator("mean")
    _check_size(round.n, aggregator, name)
    if round in _KNOWN:
        return _KNOWN[round]
    results: list[tuple[float, float]] = []
    seen: dict[bytes, tuple[float, float]] = {}
    with single_thread():
        for update in itertools.chain([aggregator(round)], leave_one_out(aggregator, round)):
            key = blake2b(update.cpu().numpy().tobytes(), digest_size=32).digest()
            if key not in seen:  # Krum often selects the same client
                moved = round.global_params + update
                seen[key] = error_and_loss(server.model, moved, server.validation, BATCH, server.task)
            results.append(seen[key])
    (error, loss), without = results[0], results[1:]
    found = (
        np.array([difference(error, e) for e, _ in without]),
        np.array([difference(loss, other) for _, other in without]),
    )
    if shares_work(aggregator):
        _KNOWN[round] = found
    return found


def difference(a: float, b: float) -> float:
    """A − b for losses that may not be finite: NaN counts as +Inf, and Inf − Inf is 0."""
    a, b = (math.inf if math.isnan(x) else x for x in (a, b))
    return 0.0 if a == b else a - b


def _check_size(n: int, aggregator: AggregationRule, name: str) -> None:
    least = aggregator.min_clients()
    if 1 < n <= least:
        raise TooFewClientsError(
            f"{name} leaves out one client at a time, and the aggregation rule {aggregator.name} needs "
            f"at least {least} clients: the round has {n}, {least + 1} are needed"
        )


def impact_ranks(round: Round, impact: NDArray[np.float64]) -> NDArray[np.intp]:
    """(n,) 0 for the smallest impact; ties are ordered by client id.

    Impacts are differences of losses, which the model computes in float32.
    """
    return ranks(impact, round.client_ids, ROUNDING, scale=1.0)


def removed(round: Round, impact: NDArray[np.float64], num_malicious: int | None) -> NDArray[np.bool_]:
    """(n,) the c clients with the largest impact; among equal impacts, those later by id."""
    return impact_ranks(round, impact) >= round.n - count(round.n, num_malicious)


def count(n: int, num_malicious: int | None) -> int:
    """C, the number of clients to remove: ⌊(n − 1)/2⌋ unless given."""
    return (n - 1) // 2 if num_malicious is None else num_malicious
