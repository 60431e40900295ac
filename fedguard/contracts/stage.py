"""Stages: transform the updates before the aggregator, and the aggregate after it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from ..core.errors import ContractError
from ..core.state import State
from .aggregator import Aggregator
from .card import Card, Method
from .round import Round

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Stage(Method):
    """A transformation before or after the aggregator. Override ``before``, ``after`` or both.

    Stages see only the clients that the policy accepts. They do not run if there are none.

    Example:
        >>> from fedguard import Card, Guard, Round, Stage
        >>> class Damp(Stage):
        ...     card = Card("damp", "halves the aggregate", "FedGuard")
        ...     def after(self, round, update):
        ...         return update / 2
        >>> Guard(stages=Damp()).process(Round([[2.0, 4.0]])).aggregate
        tensor([1., 2.])
    """

    #: Names from ``fedguard.contracts.detector.NEEDS`` that the round must provide.
    needs: frozenset[str] = frozenset()

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Transform the aggregator's input, for example clip norms or average neighbors.

        Args:
            round: the surviving clients; every update is usable.
            weights: (n,) in (0, 1].

        Returns:
            A round of the same d (possibly with other rows, for example buckets) and a weight for each row.
        """
        return round, weights

    def after(self, round: Round, update: Tensor) -> Tensor:
        """Transform the aggregate, a (d,) update of the global model; ``round`` is as in ``before``."""
        return update

    def min_clients(self) -> int:
        """The smallest number of surviving clients for which the stage is defined."""
        return 1

    def commit(self, round: Round, update: Tensor) -> None:
        """Store what later rounds need, after the (d,) ``update`` has been applied."""

    def state_dict(self) -> State:
        """A snapshot of everything that ``commit`` has stored."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Restore a state that ``state_dict`` returned."""


class Staged(Aggregator):
    """Stages followed by an aggregator, as one aggregation rule.

    Args:
        stages: the stages, in order.
        aggregator: the aggregator after them.
    """

    card = Card("staged", "an aggregator behind stages", "FedGuard")

    def __init__(self, stages: Sequence[Stage], aggregator: Aggregator) -> None:
        self.stages = tuple(stages)
        self.inner = aggregator

    @property
    def name(self) -> str:
        """The stages and the aggregator."""
        return " > ".join([*(stage.name for stage in self.stages), self.inner.name])

    def min_clients(self) -> int:
        """The largest minimum of the stages; the aggregator's is checked on the output of the stages."""
        return max(stage.min_clients() for stage in self.stages)

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Apply the stages to the round in order, then aggregate."""
        d = round.updates.d
        for stage in self.stages:
            round, weights = stage.before(round, weights)
            if round.updates.d != d or weights.shape != (round.n,) or not round.usable.all():
                raise ContractError(
                    f"stage {stage.name} did not return usable updates of {d} parameters, each with a weight"
                )
        return self.inner(round, weights)

    def finish(self, round: Round, weights: NDArray[np.float64], update: Tensor) -> Tensor:
        """Apply the stages to the aggregate of a round; returns it unchanged if no client was accepted."""
        survivors = np.flatnonzero(weights > 0)
        if len(survivors) == 0:
            return update
        part = round.take(survivors)
        for stage in self.stages:
            update = stage.after(part, update)
            if update.shape != (round.updates.d,) or not bool(update.isfinite().all()):
                raise ContractError(f"stage {stage.name} did not return {round.updates.d} finite numbers")
        return update

    def commit(self, round: Round, update: Tensor) -> None:
        """Commit every part."""
        for part in self.parts():
            part.commit(round, update)

    def state_dict(self) -> State:
        """The state of every part, in order."""
        return {"parts": [part.state_dict() for part in self.parts()]}

    def load_state_dict(self, state: State) -> None:
        """Restore the state of every part."""
        for part, own in zip(self.parts(), state["parts"], strict=True):
            part.load_state_dict(own)

    def parts(self) -> list[Stage | Aggregator]:
        """The stages and the aggregator, in order."""
        return [*self.stages, self.inner]
