"""What attacks on texts ask of their data."""

from __future__ import annotations

import torch
from torch import Tensor

from fedguard.core.errors import ParameterError


def require_texts(name: str, input_shape: tuple[int, ...], target: int, num_classes: int) -> None:
    """Raise a `ParameterError` unless an input is one row of tokens and the target is a class."""
    if len(input_shape) != 1:
        raise ParameterError(
            f"{name}: this attack needs texts (tokens,), but one input has shape {tuple(input_shape)}; "
            "use scaling_backdoor for images"
        )
    if target >= num_classes:
        raise ParameterError(f"{name}: target is {target}, but the data have classes 0 to {num_classes - 1}")


def require_tokens(name: str, pixels: Tensor) -> None:
    """Raise a `ParameterError` unless all inputs are token numbers, or −1 for padding."""
    if not torch.equal(pixels, pixels.round()) or bool((pixels < -1).any()):
        raise ParameterError(
            f"{name}: the inputs are not numbers of tokens; use the data sets text or topics"
        )
