"""ResNet-20, with group or batch normalization."""

from __future__ import annotations

from .cifar_resnet import CifarResNet


class ResNet20(CifarResNet):
    """3×3×16, three stages of three residual blocks (16, 32, 64 channels), mean over the image, L.

    Group normalization (8 groups) replaces the paper's batch normalization unless ``norm`` is
    "batch". 269,722 parameters on color images.

    Source: He et al., Deep Residual Learning, CVPR 2016, §4.2 (n = 3, shortcuts of option A).

    Args:
        input_shape: (channels, height, width).
        num_classes: the number of labels.
        norm: "group", or "batch", whose running statistics clients send with their updates.
    """

    name = "resnet20"
    blocks = 3
