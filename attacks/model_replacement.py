"""Model replacement: scale a backdoored update such that averaging yields the attacker's model."""

from __future__ import annotations

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError

from ._backdoor import SquareBackdoor
from ._checks import require_positive


class ModelReplacement(SquareBackdoor):
    """Train on D ∪ {(x with trigger, target)}, then send γ (x_i − w_{t−1}) with γ = n / (η m).

    With equal sample counts and converged benign clients, FedAvg then gives the mean of the attackers'
    backdoored models, which replaces the global model. The m attackers of the round share γ. The trigger is a
    white square in the bottom-right corner, added before normalization.

    Args:
        target: the label that the trigger should cause.
        scale: γ; None computes n / (η m) per round.
        server_lr: η, the server's learning rate as the attacker assumes it.
        fraction: |R| / |D|, in (0, 1]: the share of local samples with a stamped replica. The paper
            mixes 20 backdoor samples into a batch of 64.
        patch: side of the square in pixels, all channels.

    Raises:
        ParameterError: a parameter out of range.

    Source: Bagdasaryan et al., AISTATS 2020, §4.2 (equation 3).
    """

    card = Card(
        "model_replacement",
        "plant a pixel trigger and scale until it replaces the model",
        "Bagdasaryan et al., How to Backdoor Federated Learning, AISTATS 2020",
    )

    def __init__(
        self,
        target: int = 0,
        scale: float | None = None,
        server_lr: float = 1.0,
        fraction: float = 0.45,
        patch: int = 3,
    ) -> None:
        super().__init__(target, scale, fraction, patch)
        require_positive(self.name, "server_lr", server_lr)
        self.server_lr = server_lr

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Also refuse a factor that would shrink the update."""
        super().check(input_shape, num_classes, n, m)
        if self.scale is None and m > 0 and n / (self.server_lr * m) < 1:
            raise ParameterError(
                f"model_replacement: n / (server_lr · m) is {n / (self.server_lr * m):.3g} < 1; set `scale`"
            )

    def factor(self, view: UpdateView) -> float:
        """γ of this round."""
        if self.scale is not None:
            return self.scale
        return view.num_clients / (self.server_lr * view.num_malicious)
