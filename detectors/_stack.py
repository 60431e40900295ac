"""FedREDefense's inner loop in closed form for plain stacks of layers: without a graph, at half the cost.

Training is a chain of steps w_{k+1} = w_k − α ∇f(w_k). Backwards through it, a gradient λ with respect to
w_{k+1} becomes λ − α H λ, and images and targets receive −α times the derivative of ⟨λ, ∇f⟩. All of these are
one directional derivative of the gradient, along λ: Pearlmutter's R-operator, a second forward and backward
pass in which every layer is linear.

Source: Pearlmutter, Fast exact multiplication by the Hessian, Neural Computation 1994.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedguard.training.parameters import learned

from ._stack_layers import Affine, Convolution, Dense, Flatten, Layer, Pool, Relu, channels_last, known_layers


@dataclass(frozen=True)
class Tape:
    """What is needed to differentiate a training step afterwards.

    Attributes:
        weights: the parameters before it, by layer.
        seen: by layer, its input (affine) or its choice (selection).
        sensitivities: by affine layer, the gradient with respect to its output.
        probabilities: (…, K, C).
        gradients: ∇f by layer.
    """

    weights: list[list[Tensor]]
    seen: list[Any]
    sensitivities: dict[int, Tensor]
    probabilities: Tensor
    gradients: list[list[Tensor]]


class Stack:
    """A network as a stack of layers that this module can differentiate.

    Without convolutions and pooling, it also takes the data of B clients at once: every tensor then has a
    first dimension of size B, and a client's results have the same bits in any company.

    Args:
        layers: from the input to the logits.
        average: how the soft-label cross-entropy averages.
    """

    def __init__(self, layers: list[Layer], average: Literal["classes", "batch"]) -> None:
        self.layers, self.average = layers, average
        self.counts = [layer.parameters if isinstance(layer, Affine) else 0 for layer in layers]
        self.first = next((i for i, count in enumerate(self.counts) if count), 0)

    def of_vectors(self) -> Stack | None:
        """The stack for inputs that are flat already, or None if it has layers for images."""
        if any(isinstance(layer, Convolution | Pool) for layer in self.layers):
            return None
        return Stack([layer for layer in self.layers if not isinstance(layer, Flatten)], self.average)

    def fits(self, images: Tensor) -> bool:
        """Whether every layer gets the input it expects: images (4 dimensions) or vectors (2)."""
        now = images.dim()
        for layer in self.layers:
            if isinstance(layer, Flatten):
                now = 2
            elif not isinstance(layer, Relu) and now != (2 if isinstance(layer, Dense) else 4):
                return False
        return now == 2

    def split(self, parts: list[Tensor]) -> list[list[Tensor]]:
        """Parameters (or vectors like them) by layer."""
        source: Iterator[Tensor] = iter(parts)
        return [[next(source) for _ in range(count)] for count in self.counts]

    def gradient(self, weights: list[list[Tensor]], images: Tensor, targets: Tensor) -> Tape:
        """∇f on the images and their soft labels, which sum to one."""
        a, seen = images, []
        for layer, own in zip(self.layers, weights, strict=True):
            if isinstance(layer, Affine):
                seen.append(a)
                a = layer.apply(a, *_two(own))
            else:
                a, chosen = layer.choose(a)
                seen.append(chosen)
        probabilities = a.softmax(-1)
        g = self.scale(targets) * (probabilities - targets)
        sensitivities: dict[int, Tensor] = {}
        gradients: list[list[Tensor]] = [[] for _ in self.layers]
        for i in reversed(range(self.first, len(self.layers))):
            layer, own = self.layers[i], weights[i]
            if isinstance(layer, Affine):
                sensitivities[i] = g
                gradients[i] = [layer.to_weight(g, own[0], seen[i])] + [layer.to_bias(g)] * (len(own) - 1)
                g = layer.to_input(g, own[0], seen[i]) if i > self.first else g
            else:
                g = layer.backwards(g, seen[i])
        return Tape(weights, seen, sensitivities, probabilities, gradients)

    def derivative(
        self, tape: Tape, along: list[list[Tensor]], images: Tensor, targets: Tensor, hessian: bool
    ) -> tuple[list[list[Tensor]], Tensor, Tensor]:
        """The gradients of ⟨v, ∇f⟩ with respect to weights (H v, if ``hessian``), images and targets."""
        moved: list[Tensor | None] = []
        r: Tensor | None = None
        for i, layer in enumerate(self.layers):
            moved.append(r)
            if isinstance(layer, Affine):
                new = layer.apply(tape.seen[i], *_two(along[i]))
                r = new if r is None else new + layer.apply(r, tape.weights[i][0], None)
            elif r is not None:
                r = layer.forwards(r, tape.seen[i])
        assert r is not None  # noqa: S101 - there is an affine layer
        p = tape.probabilities
        centered = r - (p * r).sum(-1, keepdim=True)
        scale = self.scale(targets)
        to_targets, g = -scale * centered, scale * p * centered
        product: list[list[Tensor]] = [[] for _ in self.layers]
        for i in reversed(range(len(self.layers))):
            layer = self.layers[i]
            if not isinstance(layer, Affine):
                g = layer.backwards(g, tape.seen[i])
                continue
            weight, gz, a, ra = tape.weights[i][0], tape.sensitivities[i], tape.seen[i], moved[i]
            if hessian:
                own = layer.to_weight(g, weight, a)
                own = own if ra is None else own + layer.to_weight(gz, weight, ra)
                product[i] = [own] + [layer.to_bias(g)] * (layer.parameters - 1)
            g = layer.to_input(g, weight, a) + layer.to_input(gz, along[i][0], a)
        return product, g, to_targets

    def scale(self, targets: Tensor) -> float:
        k, c = targets.shape[-2:]
        return 1 / (k * c if self.average == "classes" else k)


def unroll(
    stack: Stack, first: list[Tensor], steps: int, images: Tensor, targets: Tensor, lr: Tensor
) -> Tensor:
    """The flat parameters after N steps from ``first``, differentiable in images, targets and α.

    With (B,) rates, images and targets of B clients, (B, d): each client's parameters.
    """
    end: Tensor = _Unroll.apply(stack, first, steps, images, targets, lr)  # type: ignore[no-untyped-call]
    return end


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stack: Stack, first: list[Tensor], steps: int, *knowledge: Tensor) -> Tensor:
        images, targets, rate = knowledge
        images = channels_last(images)
        weights, tapes = stack.split([part.expand(*rate.shape, *part.shape) for part in first]), []
        for _ in range(steps):
            tape = stack.gradient(weights, images, targets)
            tapes.append(tape)
            weights = _step(weights, tape.gradients, rate)
        ctx.stack, ctx.tapes, ctx.shapes = stack, tapes, [part.shape for part in first]
        ctx.knowledge = images, targets, rate
        return torch.cat([part.flatten(rate.dim()) for own in weights for part in own], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, flat: Tensor) -> Any:
        stack, (images, targets, rate) = ctx.stack, ctx.knowledge
        parts = torch.split(flat, [shape.numel() for shape in ctx.shapes], -1)
        along = stack.split(
            [p.reshape(*rate.shape, *shape) for p, shape in zip(parts, ctx.shapes, strict=True)]
        )
        to_images, to_targets = torch.zeros_like(images), torch.zeros_like(targets)
        to_rate = torch.zeros_like(rate)
        for k in reversed(range(len(ctx.tapes))):
            tape = ctx.tapes[k]
            product, images_, targets_ = stack.derivative(tape, along, images, targets, hessian=k > 0)
            to_images -= _times(rate, images_)
            to_targets -= _times(rate, targets_)
            to_rate -= _inner_product(_flat(along), _flat(tape.gradients), rate)
            along = _step(along, product, rate) if k > 0 else along
        return None, None, None, to_images, to_targets, to_rate


def closed_form(network: nn.Module, average: Literal["classes", "batch"]) -> Stack | None:
    """The network as a stack of layers, or None if it contains a layer that this module does not know."""
    if not isinstance(network, nn.Sequential) or type(network).forward is not nn.Sequential.forward:
        return None
    layers: list[Layer] = []
    for module in network:  # not children(), which leaves out repetitions
        layer = known_layers(module)
        if layer is None:
            return None
        layers += layer
    for i in range(len(layers) - 1):  # the same result on fewer numbers, as both are monotone
        if isinstance(layers[i], Relu) and isinstance(layers[i + 1], Pool):
            layers[i], layers[i + 1] = layers[i + 1], layers[i]
    stack = Stack(layers, average)
    # `split` needs at least one layer with parameters, none that is used twice, and none that is frozen.
    return stack if 0 < sum(stack.counts) == len(learned(network)) else None


def _two(own: list[Tensor]) -> tuple[Tensor, Tensor | None]:
    return own[0], own[1] if len(own) > 1 else None


def _flat(parts: list[list[Tensor]]) -> list[Tensor]:
    return [part for own in parts for part in own]


def _step(parts: list[list[Tensor]], moves: list[list[Tensor]], rate: Tensor) -> list[list[Tensor]]:
    pairs = [zip(*both, strict=True) for both in zip(parts, moves, strict=True)]
    return [[p - _times(rate, m) for p, m in both] for both in pairs]


def _times(rate: Tensor, part: Tensor) -> Tensor:
    """α · part, for one client or for each of B."""
    return rate.view(*rate.shape, *[1] * (part.dim() - rate.dim())) * part


def _inner_product(some: list[Tensor], others: list[Tensor], rate: Tensor) -> Tensor:
    """⟨v, g⟩, for one client or for each of B."""
    first = rate.dim()
    products = (
        torch.linalg.vecdot(v.flatten(first), g.flatten(first)) for v, g in zip(some, others, strict=True)
    )
    return sum(products, torch.zeros_like(rate))
