"""ResNet-20, with group or batch normalization."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from ...core.errors import ParameterError
from .base import Shape, require_images

Norm = Literal["group", "batch"]
#: Groups of channels that GroupNorm normalizes together.
GROUPS = 8


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm not in ("group", "batch"):
        raise ParameterError(f"model resnet20: norm is {norm!r}; use 'group' or 'batch'")
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(GROUPS, channels)


class _Residual(nn.Module):
    """ReLU(x + norm(conv(ReLU(norm(conv(x)))))); if it halves the image, x is subsampled and padded."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = _norm(norm, after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = _norm(norm, after)
        self.stride, self.new_channels = stride, after - before

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H/stride, W/stride)."""
        inner = torch.relu(self.first_norm(self.first(inputs)))
        shortcut = inputs[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(shortcut + self.second_norm(self.second(inner)))


class ResNet20(nn.Sequential):
    """3×3×16, three stages of three residual blocks (16, 32, 64 channels), mean over the image, L.

    Group normalization (8 groups) replaces the paper's batch normalization unless ``norm`` is
    "batch". 269,722 parameters on color images.

    Source: He et al., Deep Residual Learning, CVPR 2016, §4.2 (n = 3, shortcuts of option A).

    Args:
        input_shape: (channels, height, width).
        num_classes: the number of labels.
        norm: "group", or "batch", whose running statistics clients send with their updates.
    """

    def __init__(self, input_shape: Shape, num_classes: int, norm: Norm = "group") -> None:
        require_images("resnet20", input_shape)
        layers: list[nn.Module] = [
            nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False), _norm(norm, 16), nn.ReLU()
        ]  # fmt: skip
        for before, after in ((16, 16), (16, 32), (32, 64)):
            layers.append(_Residual(before, after, after // before, norm))
            layers += [_Residual(after, after, 1, norm) for _ in range(2)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
