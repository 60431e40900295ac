"""VGG-11 for small images."""

from __future__ import annotations

from typing import Literal

from torch import nn

from .base import Shape, normalization, require_size

#: Output channels of the 3×3 convolutions, configuration A; 0 is a 2×2 max pooling.
CONFIGURATION_A = (64, 0, 128, 0, 256, 256, 0, 512, 512, 0, 512, 512, 0)


class Vgg11(nn.Sequential):
    """Eight 3×3 convolutions (64 to 512 channels) with five max poolings, then one linear layer, L.

    The form for 32×32 images that the literature on CIFAR uses: one linear layer replaces the three of the
    paper, whose 4096 hidden units are for 224×224 images. On color images of 32×32: 9,231,114 parameters,
    9,225,610 without normalization.

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks, ICLR 2015, Table 1 (A); batch
    normalization is later than the paper, which has none.

    Args:
        input_shape: (channels, height, width), at least 32×32.
        num_classes: the number of labels.
        norm: after every convolution: "batch", "group" (8 groups) or "none".
    """

    def __init__(
        self, input_shape: Shape, num_classes: int, norm: Literal["batch", "group", "none"] = "batch"
    ) -> None:
        require_size("vgg11", input_shape, 32)
        before, height, width = input_shape
        layers: list[nn.Module] = []
        for after in CONFIGURATION_A:
            if after == 0:
                layers.append(nn.MaxPool2d(2))
                height, width = height // 2, width // 2
                continue
            layers.append(nn.Conv2d(before, after, 3, padding=1))
            layers += [] if norm == "none" else [normalization("vgg11", norm, after)]
            layers.append(nn.ReLU())
            before = after
        super().__init__(*layers, nn.Flatten(), nn.Linear(before * height * width, num_classes))
