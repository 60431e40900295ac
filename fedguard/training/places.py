"""Where a model's parameters lie in a flat vector, those of low-rank adapters among them."""

from __future__ import annotations

import torch
from torch import nn

from ..core.errors import RoundError
from .parameters import fitting

#: What names of an adapter's factors A and B hold.
DOWN, UP = ".lora_A.", ".lora_B."


class Place:
    """Where a parameter lies in a flat vector, and its shape."""

    def __init__(self, start: int, shape: torch.Size) -> None:
        self.span, self.shape = slice(start, start + shape.numel()), shape


def places(model: nn.Module, d: int) -> dict[str, Place]:
    """The parameters of a flat vector by name.

    Raises:
        RoundError: the model does not have d parameters.
    """
    try:
        named = fitting(model, d)
    except RoundError:
        raise RoundError(f"the updates have {d} parameters, but the model has a different number") from None
    found, at = dict[str, Place](), 0
    for name, parameter in named.items():
        found[name] = Place(at, parameter.shape)
        at += parameter.numel()
    return found
