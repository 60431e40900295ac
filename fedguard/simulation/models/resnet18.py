"""ResNet-18 for small images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Norm, Shape, normalization, require_images


class _Block(nn.Module):
    """ReLU(s(x) + norm(conv(ReLU(norm(conv(x)))))), s a 1×1 convolution where the shape changes, else x."""

    def __init__(self, before: int, after: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.first_norm = normalization("resnet18", norm, after)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.second_norm = normalization("resnet18", norm, after)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or before != after:
            project = nn.Conv2d(before, after, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, normalization("resnet18", norm, after))

    def forward(self, inputs: Tensor) -> Tensor:
        """(N, before, H, W) → (N, after, H/stride, W/stride)."""
        inner = torch.relu(self.first_norm(self.first(inputs)))
        return torch.relu(self.shortcut(inputs) + self.second_norm(self.second(inner)))


class ResNet18(nn.Sequential):
    """3×3×64, four stages of two residual blocks (64, 128, 256, 512 channels), mean over the image, L.

    The form for 32×32 images that the literature on CIFAR uses: the first convolution is 3×3 with stride 1,
    and no max pooling follows. 11,173,962 parameters on color images.

    Source: He et al., Deep Residual Learning, CVPR 2016, Table 1 (18 layers, shortcuts of option B); the
    paper's own first layers, 7×7 with stride 2 and pooling, are for 224×224 (``torchvision:resnet18``).

    Args:
        input_shape: (channels, height, width).
        num_classes: the number of labels.
        norm: "batch", whose running statistics clients send with their updates, or "group" (8 groups).
    """

    def __init__(self, input_shape: Shape, num_classes: int, norm: Norm = "batch") -> None:
        require_images("resnet18", input_shape)
        layers: list[nn.Module] = [
            nn.Conv2d(input_shape[0], 64, 3, padding=1, bias=False),
            normalization("resnet18", norm, 64),
            nn.ReLU(),
        ]
        for before, after in ((64, 64), (64, 128), (128, 256), (256, 512)):
            layers += [_Block(before, after, after // before, norm), _Block(after, after, 1, norm)]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, num_classes))
