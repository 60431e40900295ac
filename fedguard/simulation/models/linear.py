"""Logistic regression and fully connected networks, for inputs of any shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from ...core.errors import ParameterError
from .base import Shape


class LogisticRegression(nn.Sequential):
    """softmax(W x + b) on the flattened input.

    Source: McMahan et al., FedAvg, AISTATS 2017 (as multinomial logistic regression).
    """

    def __init__(self, input_shape: Shape, num_classes: int) -> None:
        super().__init__(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


class Mlp(nn.Sequential):
    """Fully connected layers with ReLU on the flattened input.

    Args:
        input_shape: the shape of one input.
        num_classes: the number of labels.
        hidden: the widths of the hidden layers.
    """

    def __init__(self, input_shape: Shape, num_classes: int, hidden: Sequence[int] = (64,)) -> None:
        if not hidden or min(hidden) < 1:
            raise ParameterError(
                f"model mlp: hidden is {list(hidden)}; give at least one width, each at least 1 "
                "(without hidden layers use logistic_regression)"
            )
        widths = [math.prod(input_shape), *hidden]
        layers: list[nn.Module] = [nn.Flatten()]
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        super().__init__(*layers, nn.Linear(widths[-1], num_classes))
