"""Inflated counts: claim more samples than there are, to gain weight in the mean."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedguard.contracts.card import Card
from fedguard.contracts.nested import AttackSpec
from fedguard.core.errors import ParameterError

from ._wrapped import Wrapped


class InflatedCounts(Wrapped):
    """n'_i = factor · n_i for every malicious client, under another attack.

    The weighted mean gives malicious clients the share factor·n_M / (factor·n_M + n_B) of the model, so a few
    of them outweigh all others. A bound on a client's share (the stage ``count_clipping``, uniform weights,
    order statistics) prevents this. The server cannot verify counts without seeing the data.

    Args:
        attack: what the malicious clients send: a name, or a mapping with name and parameters.
        factor: the factor on the claimed number of samples, > 1.

    Raises:
        ParameterError: a factor of 1 or less, or an attack that cannot be built or sends nothing.

    Source: FedGuard; the weights are those of McMahan et al., FedAvg, AISTATS 2017, Algorithm 1.
    """

    card = Card(
        "inflated_counts",
        "claim more samples than there are, under another attack",
        "FedGuard",
    )
    exempt = MappingProxyType({"what it overrides fits its kind": "it does what the inner attack does"})

    def __init__(self, attack: AttackSpec = "label_flip", factor: float = 100.0) -> None:
        if not 1 < factor < float("inf"):
            raise ParameterError(f"{self.name}: factor is {factor}; use a finite number above 1")
        super().__init__(attack)
        self.factor = factor

    def claim(self, num_examples: NDArray[np.float64], everybody: NDArray[np.float64]) -> NDArray[Any]:
        """``factor`` times the inner attack's claims."""
        return self.factor * super().claim(num_examples, everybody)
