"""Stages: what happens to updates before the aggregator, and to the aggregate after it."""

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
    """A step between the policy's decision and the new global model; override ``before``, ``after`` or both.

    Stages see only the clients that the policy lets through, and no stage runs if there are none.
    """

    #: Names out of ``fedguard.contracts.detector.NEEDS`` that the round must provide.
    needs: frozenset[str] = frozenset()

    def before(self, round: Round, weights: NDArray[np.float64]) -> tuple[Round, NDArray[np.float64]]:
        """Change what the aggregator gets, for example clip norms or mix neighbors.

        Args:
            round: the surviving clients, every update usable.
            weights: (n,) in (0, 1].

        Returns:
            A round of the same d (it may have other rows: buckets, say) and a weight for each row.
        """
        return round, weights

    def after(self, round: Round, update: Tensor) -> Tensor:
        """Change what the aggregator gave: a (d,) update of the global model; ``round`` as in ``before``."""
        return update

    def min_clients(self) -> int:
        """The smallest number of surviving clients that this stage is defined for."""
        return 1

    def commit(self, round: Round, update: Tensor) -> None:
        """Remember what later rounds need, once the (d,) ``update`` has been applied."""

    def state_dict(self) -> State:
        """Everything that ``commit`` has remembered; a snapshot."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Go back to a state that ``state_dict`` returned."""


class Staged(Aggregator):
    """An aggregator with the ``before`` of some stages in front of it: the aggregation rule in use.

    Args:
        stages: in the order in which they run.
        aggregator: what they feed.
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
        """What the strictest part needs; a stage that merges clients is counted when it runs."""
        return max(stage.min_clients() for stage in self.stages)

    def aggregate(self, round: Round, weights: NDArray[np.float64]) -> Tensor:
        """Let the stages work on the round one after the other, then aggregate."""
        d = round.updates.d
        for stage in self.stages:
            round, weights = stage.before(round, weights)
            if round.updates.d != d or weights.shape != (round.n,) or not round.usable.all():
                raise ContractError(
                    f"stage {stage.name} returned something else than usable updates of {d} parameters "
                    "and a weight for each"
                )
        return self.inner(round, weights)

    def finish(self, round: Round, weights: NDArray[np.float64], update: Tensor) -> Tensor:
        """Let the stages work on the aggregate of a round; nothing happens if nobody was let through."""
        survivors = np.flatnonzero(weights > 0)
        if len(survivors) == 0:
            return update
        part = round.take(survivors)
        for stage in self.stages:
            update = stage.after(part, update)
            if update.shape != (round.updates.d,) or not bool(update.isfinite().all()):
                raise ContractError(f"stage {stage.name} returned something else than d finite numbers")
        return update

    def commit(self, round: Round, update: Tensor) -> None:
        """Every part remembers on its own."""
        for part in self.parts():
            part.commit(round, update)

    def state_dict(self) -> State:
        """The state of every part, in order."""
        return {"parts": [part.state_dict() for part in self.parts()]}

    def load_state_dict(self, state: State) -> None:
        """Hand every part its state."""
        for part, own in zip(self.parts(), state["parts"], strict=True):
            part.load_state_dict(own)

    def parts(self) -> list[Stage | Aggregator]:
        """The stages and the aggregator, in order."""
        return [*self.stages, self.inner]
