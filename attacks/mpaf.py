"""MPAF: fake clients pull the global model toward a bad model."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from fedguard.contracts.attack import Attack, UpdateView
from fedguard.contracts.card import Card
from fedguard.core.errors import ParameterError
from fedguard.core.seeds import generator

from ._checks import require_positive
from ._statistics import by_all


class MPAF(Attack):
    """u' = λ (w_base − w_{t−1}) for every malicious client, with the same w_base in all rounds.

    The attack needs no data and no training. With base "initial", the update of the first round is 0.

    Args:
        scale: λ; 3 in FedREDefense, 1e6 in the original, which any norm check detects.
        base: "initial": w_base is the model that training started from, as in FedREDefense; "random": weights
            drawn once from N(0, std²).
        std: standard deviation of the random weights; the papers name no distribution, so this is ours.
        base_seed: the only seed that the random base depends on; neither the round nor the experiment's seed
            changes it.

    Source: Cao & Gong, MPAF, CVPR Workshops 2022; Xie et al., FedREDefense, ICML 2024, App. A.2.
    """

    card = Card(
        "mpaf",
        "pull the global model toward its initial or a random state",
        "Cao & Gong, MPAF, CVPR Workshops 2022",
    )
    kind = "model"

    def __init__(
        self,
        scale: float = 3.0,
        base: Literal["initial", "random"] = "initial",
        std: float = 1.0,
        base_seed: int = 0,
    ) -> None:
        require_positive("mpaf", "scale", scale)
        require_positive("mpaf", "std", std)
        if base not in ("initial", "random"):
            raise ParameterError(f"mpaf: base is {base!r}; use 'initial' or 'random'")
        self.scale = scale
        self.base = base
        self.std = std
        self.base_seed = base_seed

    def craft(self, view: UpdateView) -> Tensor:
        """The same scaled difference for every malicious client."""
        base = view.initial_params if self.base == "initial" else self._random(view.global_params)
        return by_all(self.scale * (base - view.global_params), view)

    def _random(self, like: Tensor) -> Tensor:
        draw = generator(self.base_seed, "mpaf base model")
        return self.std * torch.randn(len(like), generator=draw).to(like.device)
