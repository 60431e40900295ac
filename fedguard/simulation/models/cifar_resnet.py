"""The residual networks for small images of He et al., §4.2, of any depth 6n + 2."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from .base import Norm, Shape, normalization, require_images


class Residual(nn.Module):
    """ReLU(x + norm(conv(ReLU(norm(conv(x)))))); if it halves the image, x is subsampled and padded."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm, name: str) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = normalization(name, norm, after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = normalization(name, norm, after)
        self.stride, self.new_channels = stride, after - before

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H/stride, W/stride)."""
        inner = torch.relu(self.first_norm(self.first(inputs)))
        shortcut = inputs[:, :, :: self.stride, :: self.stride]
        shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
        return torch.relu(shortcut + self.second_norm(self.second(inner)))


class CifarResNet(nn.Sequential):
    """3×3×16, three stages of n residual blocks (16, 32, 64 channels), mean over the image, L.

    Args:
        input_shape: (channels, height, width).
        num_classes: the number of labels.
        norm: "group" or "batch".
    """

    name: ClassVar[str]
    #: Residual blocks per stage, n; the network has 6n + 2 layers with weights.
    blocks: ClassVar[int]

    def __init__(self, input_shape: Shape, num_classes: int, norm: Norm = "group") -> None:
        require_images(self.name, input_shape)
        layers: list[nn.Module] = [
            nn.Conv2d(input_shape[0], 16, 3, padding=1, bias=False),
            normalization(self.name, norm, 16),
            nn.ReLU(),
        ]
        for before, after in ((16, 16), (16, 32), (32, 64)):
            layers.append(Residual(before, after, after // before, norm, self.name))
            layers += [Residual(after, after, 1, norm, self.name) for _ in range(self.blocks - 1)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))
