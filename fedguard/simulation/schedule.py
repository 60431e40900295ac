"""When an attack takes place, and which clients take part in it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field, model_validator

from ..core.seeds import numpy_generator
from .base import Model


class Schedule(Model):
    """When the malicious clients attack; in other rounds they behave honestly.

    Attributes:
        start: the first round of the attack.
        until: the first round after the attack; None attacks until the end.
        every: attack every so many rounds, from ``start`` on.
        fraction: attack in this share of those rounds, chosen at random (Fang et al. 2020, Fig. 5c).
        initial: how many of the malicious clients attack at first; None means all of them.
        grow_every: one more joins after every so many rounds; None keeps the number.
        rejoin_after: a banned malicious client comes back under a new id after so many rounds; None keeps
            it out.
    """

    start: int = Field(0, ge=0)
    until: int | None = Field(None, ge=1)
    every: int = Field(1, ge=1)
    fraction: float = Field(1.0, gt=0, le=1)
    initial: int | None = Field(None, ge=1)
    grow_every: int | None = Field(None, ge=1)
    rejoin_after: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _fits(self) -> Schedule:
        if self.until is not None and self.until <= self.start:
            raise ValueError(f"until is {self.until}, but the attack starts in round {self.start}")
        if self.grow_every is not None and self.initial is None:
            raise ValueError("grow_every needs `initial`: how many malicious clients attack at first")
        return self

    def rounds(self, total: int, seed: int) -> list[int]:
        """The rounds out of ``total`` in which the attack takes place."""
        stop = total if self.until is None else min(self.until, total)
        planned = range(self.start, stop, self.every)
        count = round(self.fraction * len(planned))
        order = numpy_generator(seed, "attacked rounds").permutation(len(planned))
        return sorted(planned[i] for i in order[:count])

    def members(self, malicious: Sequence[int], index: int) -> list[int]:
        """The malicious clients, given in the order in which they are compromised, that attack by now."""
        if self.initial is None:
            return list(malicious)
        grown = 0 if self.grow_every is None else max(0, index - self.start) // self.grow_every
        return list(malicious[: self.initial + grown])
