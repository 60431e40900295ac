"""Small convolutional networks from papers."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from torch import nn

from ...core.errors import ParameterError
from .base import Shape, require_images


class _Cnn(nn.Sequential):
    """Twice (convolution without padding, ReLU, 2×2 max pooling), then fully connected layers."""

    name: ClassVar[str]
    channels: ClassVar[tuple[int, int]]
    kernel: ClassVar[int] = 3
    hidden: ClassVar[tuple[int, ...]]

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        require_images(self.name, input_shape)
        depth, *size = input_shape
        first, second = self.channels
        left = [self._after(self._after(side)) for side in size]
        if min(left) < 1:
            least = 2 * (2 + self.kernel - 1) + self.kernel - 1
            raise ParameterError(
                f"model {self.name}: images of {size[0]}×{size[1]} are too small, the smallest is "
                f"{least}×{least}. Use logistic_regression or mlp"
            )
        layers: list[nn.Module] = []
        for before, after in ((depth, first), (first, second)):
            # Pooling before the ReLU gives the same values, and the ReLU then works on a quarter of them.
            layers += [nn.Conv2d(before, after, self.kernel), nn.MaxPool2d(2), nn.ReLU()]
        layers.append(nn.Flatten())
        for before, after in pairwise((second * left[0] * left[1], *self.hidden)):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(self.hidden[-1], num_classes))

    @classmethod
    def _after(cls, side: int) -> int:
        """The side of an image after one convolution and pooling."""
        return (side - cls.kernel + 1) // 2


class FedredefenseFmnistCnn(_Cnn):
    """3×3×30, pool, 3×3×50, pool, 100, L: 139,960 parameters on 28×28 gray images.

    Source: Xie et al., FedREDefense, ICML 2024, Table 5; no padding; the table does not specify it.
    """

    name = "fedredefense_fmnist_cnn"
    channels = (30, 50)
    hidden = (100,)


class FedredefenseCifarCnn(_Cnn):
    """3×3×32, pool, 3×3×64, pool, 512, L: 1,204,682 parameters on 32×32 color images.

    Source: Xie et al., FedREDefense, ICML 2024, Table 6; no padding; the table does not specify it.
    """

    name = "fedredefense_cifar_cnn"
    channels = (32, 64)
    hidden = (512,)


class FangCnn(_Cnn):
    """3×3×30, pool, 3×3×50, pool, 200, L.

    Source: Fang et al., USENIX Security 2020, Table 7a; no padding; the table does not specify it.
    """

    name = "fang_cnn"
    channels = (30, 50)
    hidden = (200,)


class LeNet(_Cnn):
    """5×5×6, pool, 5×5×16, pool, 120, 84, L with ReLU and max pooling, no padding.

    Source: LeCun et al., Gradient-based learning, Proc. IEEE 1998, Fig. 2 (LeNet-5), modernized.
    """

    name = "lenet"
    channels = (6, 16)
    kernel = 5
    hidden = (120, 84)
