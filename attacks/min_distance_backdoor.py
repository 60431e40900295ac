"""The minimizing-distance backdoor: a trigger within a few standard deviations of the honest updates."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from fedguard.contracts.attack import UpdateView
from fedguard.contracts.card import Card
from fedguard.contracts.local_training import LocalTraining
from fedguard.core.errors import ParameterError

from ._backdoor import SquareBackdoor
from ._checks import require_positive, require_spread
from ._statistics import mean_and_std
from .lie import lie_z


class MinDistanceBackdoor(SquareBackdoor):
    """Train with α ℓ(D ∪ stamped D) + (1 − α) ‖w − w_g‖², then send clip(u_i, μ − z σ, μ + z σ).

    μ and σ are per coordinate over the benign updates, z is that of ``lie`` unless given. The trigger is a
    white square in the bottom-right corner, added before normalization.

    Divided by α, the training loss is that of FedProx with the weight 2 (1 − α) / α, which malicious clients
    add to their own training.

    Differences from the paper: it divides the distance by z σ per coordinate and measures it from the
    parameters that honest training would lead to, of which the global model w_g is the nearest that a client
    knows before it trains. It estimates μ and σ from the corrupted clients' own honest updates. A simulated
    malicious client trains once, on poisoned data, so μ and σ are those of the benign clients.

    Args:
        target: the label that the trigger should cause; 0 in FedML's.
        alpha: α in (0, 1]; 1 trains without the distance. The texts that were read give no value.
        z: z; None takes the formula of ``lie``.
        fraction: |R| / |D|, in (0, 1]: the share of local samples with a stamped replica.
        patch: side of the square in pixels, all channels; 5 in the papers.

    Raises:
        ParameterError: a parameter out of range, or numbers of clients for which z would be 0.

    Source: Baruch et al., A Little Is Enough, NeurIPS 2019, §4.3; named "minimizing distance backdoor" in
    FedSecurity, KDD 2024, Table 2.
    """

    card = Card(
        "min_distance_backdoor",
        "a trigger within a few standard deviations of the honest updates",
        "Baruch et al., A Little Is Enough, NeurIPS 2019",
    )
    knowledge = frozenset({"benign_updates"})

    def __init__(
        self,
        target: int = 0,
        alpha: float = 0.9,
        z: float | None = None,
        fraction: float = 1.0,
        patch: int = 5,
    ) -> None:
        super().__init__(target, 1.0, fraction, patch)
        if not 0 < alpha <= 1:
            raise ParameterError(f"min_distance_backdoor: alpha is {alpha}; use a share in (0, 1]")
        if z is not None:
            require_positive("min_distance_backdoor", "z", z)
        self.alpha = alpha
        self.z = z

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse what every pixel trigger refuses, and numbers of clients for which z would be 0."""
        super().check(input_shape, num_classes, n, m)
        require_spread(self.name, n - m, m)
        if self.z is None and m > 0 and lie_z(n, m) <= 0:
            raise ParameterError(
                f"min_distance_backdoor: for {m} malicious of {n} clients the formula gives "
                f"z = {lie_z(n, m):.3g}, which leaves no room; set z"
            )

    def local_training(self, settings: LocalTraining) -> LocalTraining:
        """The round's settings with the distance to the global model added to the loss."""
        return dataclasses.replace(settings, proximal=settings.proximal + 2 * (1 - self.alpha) / self.alpha)

    def craft(self, view: UpdateView) -> Tensor:
        """Clip every coordinate of what was trained."""
        z = max(0.0, lie_z(view.num_clients, view.num_malicious)) if self.z is None else self.z
        mean, std = mean_and_std(view.reference_updates())
        own = view.own_updates.to(mean)
        return own.clamp(mean - z * std, mean + z * std).to(view.own_updates.dtype)
