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
from fedguard.training.parameters import error_and_loss

from ._ranking import ranks

#: ERR, LFR and Union ask the same of a round; kept for rules that remember nothing, while the round lives.
_KNOWN: WeakKeyDictionary[Round, tuple[NDArray[np.float64], NDArray[np.float64]]] = WeakKeyDictionary()


#: The rounding of a loss in float32.
ROUNDING = 4 * float(np.finfo(np.float32).eps)


class LeaveOneOut(Detector):
    """What ERR, LFR and Union have in common: they need the same, and remove c clients."""

    needs = frozenset({"model", "validation", "global_params"})

    def __init__(self, num_malicious: int | None = None) -> None:
        if num_malicious is not None and num_malicious < 0:
            raise ParameterError(f"{self.name}: num_malicious is {num_malicious}; it cannot be negative")
        self.num_malicious = num_malicious

    def min_clients(self) -> int:
        """One more than c, so that somebody is kept."""
        return (self.num_malicious or 0) + 1


class Impact(LeaveOneOut):
    """What ERR and LFR have in common: the largest impacts of one kind are suspects."""

    #: Which of the two impacts counts, and what it is called.
    measure: ClassVar[int]
    called: ClassVar[str]

    def score(self, round: Round) -> Scores:
        """Score by the impact."""
        impact = impacts(round, self.name)[self.measure]
        why = f"among the {count(round.n, self.num_malicious)} largest {self.called} impacts"
        return Scores(impact, removed(round, impact, self.num_malicious), why)


def impacts(round: Round, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n,) error impacts E_A − E_B and (n,) loss impacts L_A − L_B of the aggregation rule in use.

    A is the global model that aggregating everybody gives, B the one without client i. Leaving out the
    only client leaves the global model as it is.

    Args:
        round: with global parameters, and a server with model and validation data.
        name: the detector, for messages.

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
            if key not in seen:  # Krum chooses the same client again and again
                seen[key] = error_and_loss(server.model, round.global_params + update, server.validation)
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
    """A − b for losses that may be unusable: NaN counts as +Inf, and two infinities are no difference."""
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
    """(n,) 0 for the smallest impact; equal ones are ordered by client id.

    Impacts are differences of losses, which the model computes in float32.
    """
    return ranks(impact, round.client_ids, ROUNDING, scale=1.0)


def removed(round: Round, impact: NDArray[np.float64], num_malicious: int | None) -> NDArray[np.bool_]:
    """(n,) the c clients with the largest impact; of equal impacts, those that come later by id."""
    return impact_ranks(round, impact) >= round.n - count(round.n, num_malicious)


def count(n: int, num_malicious: int | None) -> int:
    """C, how many clients to remove: ⌊(n − 1)/2⌋ unless given."""
    return (n - 1) // 2 if num_malicious is None else num_malicious
