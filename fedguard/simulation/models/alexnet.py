"""AlexNet for small images."""

from __future__ import annotations

from torch import nn

from .base import Shape, require_size


class AlexNet(nn.Sequential):
    """Five convolutions (64, 192, 384, 256, 256 channels) with three max poolings, then one linear layer, L.

    The form for 32×32 images that the literature on CIFAR uses: the padding of the first convolution and the
    poolings fit the small image, and one linear layer replaces the three of the paper. 2,472,266 parameters
    on color images of 32×32.

    Source: Krizhevsky, One weird trick for parallelizing convolutional neural networks, 2014 (its
    convolutions, those of torchvision), after Krizhevsky et al., ImageNet Classification, NIPS 2012.

    Args:
        input_shape: (channels, height, width), at least 29×29.
        num_classes: the number of labels.
    """

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        require_size("alexnet", input_shape, 29)
        height, width = (((side - 1) // 4 + 1) // 8 for side in input_shape[1:])
        super().__init__(
            nn.Conv2d(input_shape[0], 64, 11, stride=4, padding=5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 192, 5, padding=2),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(192, 384, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(256 * height * width, num_classes),
        )
