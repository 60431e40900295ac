"""The convolutional network of the paper on FedAvg."""

from __future__ import annotations

from torch import nn

from .base import Shape, require_size


class FedAvgCnn(nn.Sequential):
    """5×5×32, pool, 5×5×64, pool, 512, L with ReLU; padding keeps the size of the image.

    1,663,370 parameters on 28×28 gray images, the paper's number, which only this padding gives.

    Source: McMahan et al., FedAvg, AISTATS 2017, §3 (MNIST CNN).

    Args:
        input_shape: (channels, height, width), at least 4×4.
        num_classes: the number of labels.
    """

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        require_size("fedavg_cnn", input_shape, 4)
        channels, height, width = input_shape
        super().__init__(
            nn.Conv2d(channels, 32, 5, padding=2),
            nn.MaxPool2d(2),  # before the ReLU: the same values, and less work
            nn.ReLU(),
            nn.Conv2d(32, 64, 5, padding=2),
            nn.MaxPool2d(2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * (height // 2 // 2) * (width // 2 // 2), 512),
            nn.ReLU(),
            nn.Linear(512, num_classes),
        )
