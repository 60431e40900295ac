"""What the models share."""

from __future__ import annotations

from typing import Literal

from torch import nn

from ...core.errors import ParameterError

Shape = tuple[int, ...]
Norm = Literal["group", "batch"]
#: Groups of channels that GroupNorm normalizes together.
GROUPS = 8


def require_images(name: str, input_shape: Shape) -> None:
    """Refuse inputs that are not images (ParameterError)."""
    if len(input_shape) != 3:
        raise ParameterError(
            f"model {name} works on images (channels, height, width); the data have shape {input_shape}. "
            "Use logistic_regression or mlp"
        )


def require_size(name: str, input_shape: Shape, least: int) -> None:
    """Refuse inputs that are not images of at least ``least`` × ``least`` (ParameterError)."""
    require_images(name, input_shape)
    _, height, width = input_shape
    if min(height, width) < least:
        raise ParameterError(
            f"model {name}: images of {height}×{width} are too small, the smallest is {least}×{least}. "
            "Use logistic_regression or mlp"
        )


def normalization(name: str, norm: str, channels: int) -> nn.Module:
    """The normalization of a model's layer: "group" (8 groups) or "batch" (else ParameterError)."""
    if norm not in ("group", "batch"):
        raise ParameterError(f"model {name}: norm is {norm!r}; use 'group' or 'batch'")
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(GROUPS, channels)
