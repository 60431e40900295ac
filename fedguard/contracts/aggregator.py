"""Aggregators: from the updates that the policy lets through to one update of the global model."""

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
    """(updates, weights) → (d,). Authors write ``aggregate``; weights are positive there.

    Calling the aggregator first drops clients of weight 0 and unusable updates. If nobody is left it
    returns zeros: the global model stays as it is.
    """

    @abstractmethod
    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Aggregate a round in which everybody counts; returns (d,) float32.

        Args:
            round: the surviving clients.
            weights: (n,) the policy's weights, in (0, 1].
        """

    #: Names out of ``fedguard.contracts.detector.NEEDS`` that the round must provide.
    needs: frozenset[str] = frozenset()

    def min_clients(self) -> int:
        """The smallest number of surviving clients that this aggregator is defined for."""
        return 1

    def commit(self, round: Round, update: Tensor) -> None:
        """Remember what later rounds need, once the (d,) ``update`` of a round has been applied.

        ``aggregate`` itself changes nothing: detectors that leave clients out call it many times.
        """

    def state_dict(self) -> State:
        """Everything that ``commit`` has remembered: nested dicts of tensors and JSON values; a snapshot."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that ``state_dict`` returned."""

    def __call__(self, round: Round | Any, weights: Any = None) -> Tensor:
        """Aggregate a round (or a bare (n, d) array).

        Args:
            round: the clients' updates.
            weights: (n,) in [0, 1], 1 each if absent; 0 excludes.

        Raises:
            ParameterError: weights of the wrong shape or range.
            TooFewClientsError: fewer survivors than ``min_clients()``.
            ContractError: ``aggregate`` returned something else than d finite numbers.
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
        if result.shape != (round.updates.d,) or not bool(result.isfinite().all()):
            raise ContractError(f"{self.name} returned something else than {round.updates.d} finite numbers")
        return result
