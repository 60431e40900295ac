"""Reweight: use the weights that the detector itself gives."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..contracts.card import Card
from ..contracts.decision import Decision, PolicyInput
from ..contracts.detector import Detector
from ..contracts.policy import Policy
from ..core.errors import ParameterError


class Reweight(Policy):
    """weight_i = Π_k w_ki over the detectors' own weights w_ki, as FoolsGold and FLTrust define them.

    Args:
        rule: how scores become suspects, which are only reported, see :mod:`fedguard.contracts.rules`.
        vote: how several detectors agree on a suspect, see :class:`fedguard.contracts.policy.Policy`.

    Source: Fung et al., FoolsGold, RAID 2020; Cao et al., FLTrust, NDSS 2021.
    """

    card = Card("reweight", "weight clients as the detector says", "Fung et al., FoolsGold, RAID 2020")

    def check(self, detectors: Mapping[str, Detector]) -> None:
        """Refuse detectors that give no weights."""
        without = [name for name, detector in detectors.items() if not detector.gives_weights]
        if without or not detectors:
            raise ParameterError(
                f"policy reweight needs a detector that gives weights, {without[0] if without else 'none'} "
                "does not; use policy exclude or ban"
            )

    def decide(self, case: PolicyInput) -> Decision:
        """Multiply the detectors' weights."""
        suspects, phrases = self.suspects(case)
        weights = np.ones(len(phrases))
        for scores in case.scores.values():
            if scores.weights is not None:
                weights *= np.clip(scores.weights, 0, 1)
        reasons = tuple(f"weight {w:.3g}: {p}" for w, p in zip(weights, phrases, strict=True))
        return Decision(weights, suspects, reasons)
