"""DBA, the distributed backdoor attack: each attacker adds a part of the trigger."""

from __future__ import annotations

from types import MappingProxyType
from typing import Literal

from torch import Tensor

from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError

from ._backdoor import Backdoor

#: Preset → target, scale and fraction: the paper's multi-shot attack, and DBA in FedREDefense's experiments.
PRESETS = {"paper": (2, 1.0, 0.45), "fedredefense": (0, 3.0, 1.0)}
#: Row and column of each local trigger in the two-by-two arrangement.
PLACES = ((0, 0), (0, 1), (1, 0), (1, 1))


class DBA(Backdoor):
    """Attacker k adds the local trigger k mod 4; success is measured with all four, the global trigger.

    A local trigger is a horizontal white bar, one pixel high and ``size`` wide. The four bars form two rows
    of two with ``gap`` pixels between them, ``shift`` pixels from the top left corner. They are added before
    normalization. The paper's multi-shot attack does not scale; its single-shot attack scales by 100 in one
    round per local trigger (use ``scale`` and the attack's schedule).

    Args:
        target: the label that the trigger should cause; None takes the preset's.
        scale: factor on the update; None takes the preset's.
        fraction: |R| / |D|, in (0, 1]: the share of local samples with a stamped replica; None takes the
            preset's. The paper stamps 20 samples of a batch of 64, which is 0.45 of the rest.
        size: width of a bar (the paper's TS; 4 on MNIST).
        gap: pixels between two bars (TG; 2 on MNIST).
        shift: distance from the corner (TL; 0 on MNIST).
        preset: the source of all parameters that are None. "paper": target 2, scale 1, fraction 0.45;
            "fedredefense": target 0, scale 3, fraction 1, as in the code released with FedREDefense.

    Raises:
        ParameterError: a parameter out of range.

    Source: Xie et al., ICLR 2020, §3 and §4.1.
    """

    card = Card(
        "dba",
        "four local triggers that add up to a global one",
        "Xie et al., DBA: Distributed Backdoor Attacks, ICLR 2020",
    )
    check_with = MappingProxyType({"size": 3, "gap": 1})

    def __init__(
        self,
        target: int | None = None,
        scale: float | None = None,
        fraction: float | None = None,
        size: int = 4,
        gap: int = 2,
        shift: int = 0,
        preset: Literal["paper", "fedredefense"] = "paper",
    ) -> None:
        if preset not in PRESETS:
            raise ParameterError(f"dba: preset is {preset!r}; use 'paper' or 'fedredefense'")
        given = (target, scale, fraction)
        chosen = [
            known if value is None else value for value, known in zip(given, PRESETS[preset], strict=True)
        ]
        super().__init__(int(chosen[0]), chosen[1], chosen[2])
        self.preset = preset
        for name, value, least in (("size", size, 1), ("gap", gap, 0), ("shift", shift, 0)):
            if value < least:
                raise ParameterError(f"dba: {name} is {value}; use at least {least} pixels")
        self.size = size
        self.gap = gap
        self.shift = shift

    def stamp(self, pixels: Tensor, rank: int | None) -> Tensor:
        """One bar, or all four."""
        stamped = pixels.clone()
        for row, column in PLACES if rank is None else (PLACES[rank % len(PLACES)],):
            top = self.shift + row * (1 + self.gap)
            left = self.shift + column * (self.size + self.gap)
            stamped[..., top, left : left + self.size] = 1.0
        return stamped

    def extent(self) -> tuple[int, int]:
        """Two bars and a gap, from the corner."""
        return self.shift + 2 + self.gap, self.shift + 2 * self.size + self.gap
