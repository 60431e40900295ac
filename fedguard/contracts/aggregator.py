"""Aggregators: combine the updates that the policy accepts into one update of the global model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ContractError, ParameterError, TooFewClientsError
from ..core.state import State
from .card import Method
from .round import Round, as_round

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Aggregator(Method, ABC):
    """(updates, weights) → (d,) update of the global model. Subclasses implement ``aggregate``.

    Calling the aggregator first drops clients of weight 0 and unusable updates, so that ``aggregate`` gets
    positive weights only. If no client is left, it returns zeros: the global model stays.

    Example:
        >>> import torch
        >>> from fedguard import Aggregator, Card
        >>> class SignMajority(Aggregator):
        ...     card = Card("sign_majority", "the sign that most clients agree on", "FedGuard")
        ...     def aggregate(self, round, weights):
        ...         return round.updates.matrix.sign().sum(0).sign()
        >>> SignMajority()([[1.0, -2.0], [3.0, -1.0], [-5.0, -4.0]])
        tensor([ 1., -1.])
    """

    @abstractmethod
    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """(d,) float32: the aggregate of a round in which every client has a positive weight.

        Args:
            round: the surviving clients.
            weights: (n,) the policy's weights, in (0, 1].
        """

    #: Names from ``fedguard.contracts.detector.NEEDS`` that the round must provide.
    needs: frozenset[str] = frozenset()

    def min_clients(self) -> int:
        """The smallest number of surviving clients for which the aggregator is defined."""
        return 1

    def commit(self, round: Round, update: Tensor) -> None:
        """Store what later rounds need, after the (d,) ``update`` of a round has been applied.

        ``aggregate`` must not change the aggregator: detectors that leave clients out call it many times.
        """

    def state_dict(self) -> State:
        """A snapshot of everything that ``commit`` has stored: nested dicts of tensors and JSON values."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""

    def __call__(self, round: Round | Any, weights: Any = None) -> Tensor:
        """(d,) the aggregate of a round (or of a bare (n, d) array).

        Args:
            round: the clients' updates.
            weights: (n,) in [0, 1]; 0 excludes a client. 1 each by default.

        Raises:
            ParameterError: weights have the wrong shape or range.
            TooFewClientsError: fewer clients are left than ``min_clients()``.
            ContractError: ``aggregate`` did not return d finite numbers.
        """
        round = as_round(round)
        trust = np.ones(round.n) if weights is None else np.asarray(weights, dtype=np.float64)
        if trust.shape != (round.n,) or not ((trust >= 0) & (trust <= 1)).all():
            raise ParameterError(f"weights must be {round.n} numbers in [0, 1]")
        survivors = np.flatnonzero((trust > 0) & round.usable)
        if len(survivors) == 0:
            return torch.zeros(round.updates.d, device=round.updates.device)
        if len(survivors) < self.min_clients():
            raise TooFewClientsError(
                f"{self.name} needs at least {self.min_clients()} clients, {len(survivors)} are left"
            )
        result = self.aggregate(round.take(survivors), trust[survivors])
        if result.shape != (round.updates.d,) or not _finite(result):
            raise ContractError(f"{self.name} did not return {round.updates.d} finite numbers")
        return result


def _finite(vector: Tensor) -> bool:
    """Whether all numbers are finite. Then so is their sum, mostly, which takes a thirtieth of the time."""
    return bool(vector.sum().isfinite()) or bool(vector.isfinite().all())
