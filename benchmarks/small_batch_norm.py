"""A small convolutional network with BatchNorm for suites beside it: ``small_batch_norm:SmallBatchNorm``."""

from __future__ import annotations

from torch import nn


class SmallBatchNorm(nn.Sequential):
    """Twice (3×3 convolution, BatchNorm, ReLU, 2×2 max pooling), then one linear layer.

    Args:
        input_shape: (channels, height, width).
        num_classes: the number of labels.
        width: channels of the first convolution; the second has twice as many.
    """

    def __init__(self, input_shape: tuple[int, int, int], num_classes: int, width: int = 16) -> None:
        channels, height, rest = input_shape
        layers: list[nn.Module] = []
        for before, after in ((channels, width), (width, 2 * width)):
            layers += [
                nn.Conv2d(before, after, 3, padding=1),
                nn.BatchNorm2d(after),
                nn.ReLU(),
                nn.MaxPool2d(2),
            ]
        size = 2 * width * (height // 4) * (rest // 4)
        super().__init__(*layers, nn.Flatten(), nn.Linear(size, num_classes))
