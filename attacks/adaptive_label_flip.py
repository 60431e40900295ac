"""FedREDefense's adaptive label flips: flipped labels, scaled as far as the defense accepts them."""

from __future__ import annotations

from typing import Literal

from fedguard.contracts.card import Card

from .adaptive import Adaptive


class AdaptiveLabelFlip(Adaptive):
    """u'_i = λ_i · g_i, g_i trained on flipped labels and λ_i from Algorithm 3 (see ``adaptive``).

    The attacker queries its own clients only, since FedREDefense judges each client separately.

    Args:
        mode: the flip, see ``label_flip``; "next" is the paper's adaptive label flip, "pairs" its
            targeted one.
        pairs: source → target labels, with mode "pairs" only; {0: 2} in the paper.
        step: the initial δ, > 0.
        precision: the smallest δ, > 0.

    Source: Xie et al., FedREDefense, ICML 2024, §6.1, Algorithm 3 (δ = 2, precision 0.125).
    """

    card = Card(
        "adaptive_label_flip",
        "flipped labels, scaled as far as the defense accepts them",
        "Xie et al., FedREDefense, ICML 2024",
    )

    def __init__(
        self,
        mode: Literal["reverse", "next", "pairs"] = "next",
        pairs: dict[int, int] | None = None,
        step: float = 2.0,
        precision: float = 0.125,
    ) -> None:
        flip = {"name": "label_flip", "mode": mode, "pairs": pairs}
        super().__init__(flip, step=step, precision=precision, knowledge="partial")
