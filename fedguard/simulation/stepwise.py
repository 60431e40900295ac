"""The loop over rounds that federations have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from .records import RoundRecord
from .settings import Cell


class Stepwise(ABC):
    """A simulation that runs round by round and can resume after any of them.

    Attributes:
        cell: all settings.
    """

    cell: Cell

    @abstractmethod
    def step(self, index: int) -> RoundRecord:
        """Run one round and measure the new global model."""

    def run(
        self,
        on_round: Callable[[RoundRecord], None] = lambda _: None,
        done: Sequence[RoundRecord] = (),
    ) -> list[RoundRecord]:
        """Run all rounds that are not done yet; ``on_round`` is called after each."""
        records = list(done)
        for index in range(len(records), self.cell.rounds):
            records.append(self.step(index))
            on_round(records[-1])
        return records
