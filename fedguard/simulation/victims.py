"""Whose data a passive attack reconstructs in a federation."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from ..core.seeds import numpy_generator
from .base import Model


class Victims(Model):
    """The clients whose updates a passive attack looks at, drawn anew in each attacked round.

    Attributes:
        clients: how many of the clients whose update arrives in time.
        samples: how many samples to reconstruct of each; if absent, as many as its update was computed from.
    """

    clients: int = Field(1, ge=1, le=100_000)
    samples: int | None = Field(None, ge=1, le=100_000)

    def draw(self, candidates: Sequence[int], seed: int, index: int) -> list[int]:
        """The victims of a round, in order; all candidates if there are no more."""
        order = numpy_generator(seed, "victims", index).permutation(len(candidates))
        return sorted(candidates[i] for i in order[: self.clients])
