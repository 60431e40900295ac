"""Byzantine attacks: models of zeros, random models, flipped updates."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError

from ._checks import require_positive


class Byzantine(Attack):
    """u' = −w_g ("zero"), ω − w_g with ω_j ~ N(0, std²) ("random"), or −u_i ("flip").

    w_g is the global model w_{t−1}. The local model becomes 0, ω, or w_g + (w_g − w_l) with w_l the honestly
    trained local model. ω is drawn anew for every client and round.

    Args:
        mode: "zero", "random" or "flip"; FedSecurity's experiments use "random" by default.
        std: standard deviation of the random weights. The paper only says "random values", so this scale is
            ours; the other modes ignore it.

    Source: FedSecurity, KDD 2024, §3.1.
    """

    card = Card(
        "byzantine",
        "models of zeros, random models, or flipped updates",
        "Han et al., FedSecurity, KDD 2024",
    )
    kind = "model"

    def __init__(self, mode: Literal["zero", "random", "flip"] = "random", std: float = 1.0) -> None:
        if mode not in ("zero", "random", "flip"):
            raise ParameterError(f"byzantine: mode is {mode!r}; use 'zero', 'random' or 'flip'")
        require_positive("byzantine", "std", std)
        self.mode = mode
        self.std = std

    def craft(self, view: UpdateView) -> Tensor:
        """Replace every malicious client's model."""
        if self.mode == "flip":
            return -view.own_updates
        if self.mode == "zero":
            return -view.global_params.repeat(view.num_malicious, 1)
        weights = torch.randn(view.own_updates.shape, generator=view.generator)
        return self.std * weights.to(view.global_params.device) - view.global_params
