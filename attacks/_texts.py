"""The base of backdoors in texts: what they ask of their data, and the factor that replaces the model."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import Tensor

from fedguard.contracts.attack import UpdateView
from fedguard.core.errors import ParameterError

from ._backdoor import Backdoor


class TextTrigger(Backdoor):
    """A backdoor whose inputs are rows of token numbers, −1 for padding; without a scale, it is n / m."""

    exempt = MappingProxyType(
        dict.fromkeys(("poisoned data", "trial", "small images"), "it needs texts, and the check has images")
    )

    def factor(self, view: UpdateView) -> float:
        """γ of this round."""
        return view.num_clients / view.num_malicious if self.scale is None else self.scale

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse data other than texts, or a target that does not exist."""
        if len(input_shape) != 1:
            raise ParameterError(
                f"{self.name}: this attack needs texts (tokens,), but one input has shape "
                f"{tuple(input_shape)}; use scaling_backdoor for images"
            )
        if self.target >= num_classes:
            raise ParameterError(
                f"{self.name}: target is {self.target}, but the data have classes 0 to {num_classes - 1}"
            )


def require_tokens(name: str, pixels: Tensor) -> None:
    """Raise a `ParameterError` unless all inputs are token numbers, or −1 for padding."""
    if not torch.equal(pixels, pixels.round()) or bool((pixels < -1).any()):
        raise ParameterError(
            f"{name}: the inputs are not numbers of tokens; use the data sets text or topics"
        )
