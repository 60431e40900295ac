"""Layers as :mod:`._stack` differentiates them: forwards, and backwards to inputs and parameters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name


class Affine(ABC):
    """A layer with parameters: z = W·a + b, where W· is linear in W and in a.

    Args:
        bias: whether there is one.
    """

    def __init__(self, bias: bool) -> None:
        self.parameters = 1 + bias

    @abstractmethod
    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """z."""

    @abstractmethod
    def to_input(self, gz: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        """The gradient with respect to a."""

    @abstractmethod
    def to_weight(self, gz: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        """The gradient with respect to W."""

    @abstractmethod
    def to_bias(self, gz: Tensor) -> Tensor:
        """The gradient with respect to b."""


class Dense(Affine):
    """nn.Linear on (K, features), or on (B, K, features) with B weights and biases."""

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if weight.dim() == 2:
            return F.linear(a, weight, bias)
        return a @ weight.mT if bias is None else torch.baddbmm(bias.unsqueeze(-2), a, weight.mT)

    def to_input(self, gz: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        return gz @ weight

    def to_weight(self, gz: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        return gz.mT @ a

    def to_bias(self, gz: Tensor) -> Tensor:
        return gz.sum(-2)


class Convolution(Affine):
    """nn.Conv2d with zero padding.

    Args:
        layer: only its settings are used, not its parameters.
    """

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__(layer.bias is not None)
        self.stride, self.padding, self.dilation = layer.stride, layer.padding, layer.dilation
        self.groups = layer.groups

    def apply(self, a: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        z = F.conv2d(a, channels_last(weight), bias, self.stride, self.padding, self.dilation, self.groups)
        return channels_last(z)

    def to_input(self, gz: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        if a.shape[1] == 1 and self.groups == 1:  # with one channel, one small product is faster
            columns = weight.flatten(1).t() @ gz.flatten(2)
            where = {"dilation": self.dilation, "padding": self.padding, "stride": self.stride}
            return F.fold(columns, a.shape[2:], weight.shape[2:], **where)  # type: ignore[arg-type]
        gradient: Tensor = self._backward(gz, weight, a, [True, False, False])[0]
        return gradient

    def to_weight(self, gz: Tensor, weight: Tensor, a: Tensor) -> Tensor:
        gradient: Tensor = self._backward(gz, weight, a, [False, True, False])[1]
        return gradient

    def to_bias(self, gz: Tensor) -> Tensor:
        return gz.sum((0, 2, 3))

    def _backward(self, gz: Tensor, weight: Tensor, a: Tensor, mask: list[bool]) -> Any:
        return torch.ops.aten.convolution_backward(
            gz,
            a,
            channels_last(weight),
            None,
            self.stride,
            self.padding,
            self.dilation,
            False,
            (0, 0),
            self.groups,
            mask,
        )


class Selection(ABC):
    """A layer without parameters that selects from its input: ReLU, max-pooling, flattening.

    ``chosen`` is the selection of a forward pass; with a fixed selection, the layer is linear.
    """

    @abstractmethod
    def choose(self, a: Tensor) -> tuple[Tensor, Any]:
        """The output and what was chosen."""

    @abstractmethod
    def forwards(self, a: Tensor, chosen: Any) -> Tensor:
        """The same selection from another input."""

    @abstractmethod
    def backwards(self, g: Tensor, chosen: Any) -> Tensor:
        """The transpose."""


class Relu(Selection):
    """nn.ReLU; its derivative at 0 is 0."""

    def choose(self, a: Tensor) -> tuple[Tensor, Any]:
        positive = (a > 0).to(a.dtype)
        return a * positive, positive

    def forwards(self, a: Tensor, chosen: Any) -> Tensor:
        passed: Tensor = a * chosen
        return passed

    def backwards(self, g: Tensor, chosen: Any) -> Tensor:
        passed: Tensor = g * chosen
        return passed


class Pool(Selection):
    """nn.MaxPool2d: the first of the largest inputs of each window."""

    def __init__(self, layer: nn.MaxPool2d) -> None:
        self.window = [_pair(v) for v in (layer.kernel_size, layer.stride, layer.padding, layer.dilation)]
        self.ceil = layer.ceil_mode

    def choose(self, a: Tensor) -> tuple[Tensor, Any]:
        size, stride, padding, dilation = self.window
        pooled, index = F.max_pool2d(a, size, stride, padding, dilation, self.ceil, return_indices=True)
        return pooled, (index, a)

    def forwards(self, a: Tensor, chosen: Any) -> Tensor:
        index = chosen[0]
        return channels_last(a.flatten(2).gather(2, index.flatten(2)).view(index.shape))

    def backwards(self, g: Tensor, chosen: Any) -> Tensor:
        index, a = chosen
        g = g.contiguous(memory_format=torch.channels_last)
        size, stride, padding, dilation = self.window
        spread: Tensor = torch.ops.aten.max_pool2d_with_indices_backward(
            g, a, size, stride, padding, dilation, self.ceil, index
        )
        return spread


class Flatten(Selection):
    """nn.Flatten of everything but the batch, in the order of the default memory format."""

    def choose(self, a: Tensor) -> tuple[Tensor, Any]:
        return a.flatten(1), a

    def forwards(self, a: Tensor, chosen: Any) -> Tensor:
        return a.flatten(1)

    def backwards(self, g: Tensor, chosen: Any) -> Tensor:
        return channels_last(g.view(chosen.shape))


Layer = Affine | Selection


#: Matched by exact type, since a subclass may compute something else.
KNOWN = {nn.Linear, nn.Conv2d, nn.MaxPool2d, nn.ReLU, nn.Flatten, nn.Identity, nn.Dropout}


def known_layers(module: nn.Module) -> list[Layer] | None:
    """The layers that a module of the virtual network stands for, or None if it is unknown."""
    if type(module) not in KNOWN:
        return None
    if isinstance(module, nn.Conv2d):
        simple = module.padding_mode == "zeros" and not isinstance(module.padding, str)
        return [Convolution(module)] if simple else None
    if isinstance(module, nn.MaxPool2d):
        return None if module.return_indices else [Pool(module)]
    if isinstance(module, nn.Flatten):
        return [Flatten()] if [module.start_dim, module.end_dim] == [1, -1] else None
    if isinstance(module, nn.Linear):
        return [Dense(module.bias is not None)]
    return [Relu()] if isinstance(module, nn.ReLU) else []  # the virtual network is in eval mode: no dropout


def channels_last(a: Tensor) -> Tensor:
    """Images in the memory format that makes CPU convolutions fastest; other tensors unchanged."""
    return a.contiguous(memory_format=torch.channels_last) if a.dim() == 4 else a


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
