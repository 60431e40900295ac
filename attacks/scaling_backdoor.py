"""The scaling backdoor: learn a trigger, then scale the update."""

from __future__ import annotations

from fedguard.contracts.card import Card

from ._backdoor import SquareBackdoor


class ScalingBackdoor(SquareBackdoor):
    """Train on D ∪ {(x with trigger, target) : x ∈ R ⊆ D}, then send scale · u_i.

    The trigger is a white square in the bottom-right corner, added before normalization. ASR is measured on
    test images with the trigger whose true class is not the target.

    Args:
        target: the label that the trigger should cause; 0 in FedREDefense.
        scale: factor on the update; 3 in FedREDefense.
        fraction: |R| / |D|, in (0, 1]; R is drawn at random. FedREDefense replicates all local data (1).
        patch: side of the square in pixels, all channels; FedREDefense does not describe its trigger.

    Raises:
        ParameterError: a parameter out of range.

    Source: Bagdasaryan et al., AISTATS 2020; setting of Xie et al., FedREDefense, ICML 2024, App. A.2.
    """

    card = Card(
        "scaling_backdoor",
        "plant a pixel trigger and scale the update",
        "Bagdasaryan et al., How to Backdoor Federated Learning, AISTATS 2020",
    )

    def __init__(self, target: int = 0, scale: float = 3.0, fraction: float = 1.0, patch: int = 3) -> None:
        super().__init__(target, scale, fraction, patch)
