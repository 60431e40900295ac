"""FedREDefense's inner loop for stacks of dense layers: the operations of :mod:`._stack`, with reused memory.

Such networks and images are so small that calling an operation costs more than its arithmetic. So nothing is
recorded for autograd, every result has its place, and views are made once for many iterations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ._stack import Stack
from ._stack_layers import Dense, Relu


def is_dense(stack: Stack) -> bool:
    """Whether the stack is dense layers with biases, and one ReLU between two of them."""
    kinds = [Dense if i % 2 == 0 else Relu for i in range(len(stack.layers))]
    alternate = all(type(layer) is kind for layer, kind in zip(stack.layers, kinds, strict=True))
    return alternate and len(kinds) % 2 == 1 and set(stack.counts[::2]) == {2}


class DenseLoop:
    """N steps for B clients, and the gradients through them: the bits of :func:`._stack.unroll`.

    Args:
        stack: one that :func:`is_dense`.
        first: the parameters before the first step, by tensor.
        steps: N.
    """

    def __init__(self, stack: Stack, first: list[Tensor], steps: int) -> None:
        self._stack, self._first, self._steps = stack, first, steps
        self._places: _Places | None = None

    def ends(self, images: Tensor, targets: Tensor, rate: Tensor) -> Tensor:
        """(B, d) the parameters after N steps; valid until the next call.

        Args:
            images: (B, K, …); every image is taken as one vector.
            targets: (B, K, C) the soft labels.
            rate: (B,) α.
        """
        self._shape, images, places = images.shape, images.flatten(2), self._places
        if places is None or places.images.shape != images.shape:
            scale = self._stack.scale(targets)
            places = self._places = _Places(self._first, self._steps, images, targets, scale)
        places.images.copy_(images)
        places.targets.copy_(targets)
        places.rate.copy_(rate)
        for k in range(self._steps):
            places.descend(k)
        return places.end

    def pull(self, along: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of ⟨along, ends⟩ with respect to images, targets and α; valid until the next call."""
        places = self._places
        if places is None:
            raise RuntimeError("pull() without ends()")
        places.along.copy_(along)
        for total in places.totals:
            total.zero_()
        for k in reversed(range(self._steps)):
            places.ascend(k)
        to_images, to_targets, to_rate = places.totals
        return to_images.view(self._shape), to_targets, to_rate


class _Parts:
    """B vectors of parameters (or like them) by tensor, with the views of them that products take."""

    def __init__(self, parts: Sequence[Tensor]) -> None:
        self.parts = list(parts)
        self.weights = self.parts[::2]
        self.transposed = [weight.mT for weight in self.weights]
        self.biases = [bias.unsqueeze(-2) for bias in self.parts[1::2]]


class _Places:
    """The memory of everything that is computed for B clients. ``k`` is the number of a step."""

    def __init__(
        self, first: list[Tensor], steps: int, images: Tensor, targets: Tensor, scale: float
    ) -> None:
        count, rows, _ = images.shape
        shapes = [part.shape for part in first]
        widths = [len(bias) for bias in first[1::2]]
        self.last, self.scale = len(widths) - 1, scale

        def parts() -> _Parts:
            return _Parts([images.new_empty(count, *shape) for shape in shapes])

        def activations(sizes: list[int]) -> list[Tensor]:
            return [images.new_empty(count, rows, size) for size in sizes]

        def cut(flat: Tensor) -> _Parts:
            cuts = torch.split(flat, [shape.numel() for shape in shapes], 1)
            return _Parts([part.view(count, *shape) for part, shape in zip(cuts, shapes, strict=True)])

        self.images, self.targets = torch.empty_like(images), torch.empty_like(targets)
        self.rate = images.new_empty(count)
        self.rates = [self.rate.view(count, *[1] * len(shape)) for shape in shapes]
        self.end, self.along = (
            images.new_empty(count, sum(part.numel() for part in first)) for _ in range(2)
        )
        weights = [_Parts([part.expand(count, *part.shape) for part in first])]
        self.weights = [*weights, *(parts() for _ in range(steps - 1)), cut(self.end)]
        self.gradients = [parts() for _ in range(steps)]
        self.inputs = [[self.images, *activations(widths[:-1])] for _ in range(steps)]
        self.passes = [activations(widths[:-1]) for _ in range(steps)]
        self.sensitivities = [activations(widths) for _ in range(steps)]
        self.probabilities = activations(widths[-1:] * steps)
        self.totals = torch.empty_like(images), torch.empty_like(targets), self.rate.clone()
        # For one step at a time:
        self.logits, self.product = activations(widths[-1:] * 2)
        self.sum = images.new_empty(count, rows, 1)
        self.moved, self.g, self.more = (activations(widths) for _ in range(3))
        self.to_images, self.more_images = torch.empty_like(images), torch.empty_like(images)
        self.one_rate = torch.empty_like(self.rate)
        self.first_along, self.later_along = cut(self.along), parts()
        self.hessian, self.scratch = parts(), parts()
        self.flats = [part.flatten(1) for part in self.scratch.parts]

    def descend(self, k: int) -> None:
        """w_{k+1} = w_k − α ∇f(w_k)."""
        now, inputs, passes, probabilities = (
            self.weights[k],
            self.inputs[k],
            self.passes[k],
            self.probabilities[k],
        )
        for i in range(self.last + 1):
            out = inputs[i + 1] if i < self.last else self.logits
            torch.baddbmm(now.biases[i], inputs[i], now.transposed[i], out=out)
            if i < self.last:
                torch.gt(out, 0, out=passes[i])
                out.mul_(passes[i])
        torch.softmax(self.logits, -1, out=probabilities)
        sensitivities, found = self.sensitivities[k], self.gradients[k].parts
        torch.sub(probabilities, self.targets, out=sensitivities[-1]).mul_(self.scale)
        for i in range(self.last, -1, -1):
            g = sensitivities[i]
            torch.bmm(g.mT, inputs[i], out=found[2 * i])
            torch.sum(g, -2, out=found[2 * i + 1])
            if i:
                torch.bmm(g, now.weights[i], out=sensitivities[i - 1]).mul_(passes[i - 1])
        self._step(now, self.gradients[k], self.weights[k + 1])

    def ascend(self, k: int) -> None:
        """From the gradient λ with respect to w_{k+1} to that with respect to w_k, and to the totals."""
        now, inputs, passes, along = self.weights[k], self.inputs[k], self.passes[k], self._direction(k)
        for i, moved in enumerate(self.moved):
            torch.baddbmm(along.biases[i], inputs[i], along.transposed[i], out=moved)
            if i:
                moved.add_(torch.bmm(self.moved[i - 1], now.transposed[i], out=self.more[i]))
            if i < self.last:
                moved.mul_(passes[i])
        self._through_softmax(self.probabilities[k], self.moved[-1])
        for i in range(self.last, -1, -1):
            g, sensitivity = self.g[i], self.sensitivities[k][i]
            if k:
                product = torch.bmm(g.mT, inputs[i], out=self.hessian.weights[i])
                if i:
                    product.add_(torch.bmm(sensitivity.mT, self.moved[i - 1], out=self.scratch.weights[i]))
                torch.sum(g, -2, out=self.hessian.parts[2 * i + 1])
            back, more = (self.g[i - 1], self.more[i - 1]) if i else (self.to_images, self.more_images)
            torch.bmm(g, now.weights[i], out=back).add_(torch.bmm(sensitivity, along.weights[i], out=more))
            if i:
                back.mul_(passes[i - 1])
        self.totals[0].sub_(self.to_images.mul_(self.rates[0]))
        self.totals[2].sub_(self._inner_product(along.parts, self.gradients[k].parts))
        if k:
            self._step(along, self.hessian, self.later_along)

    def _direction(self, k: int) -> _Parts:
        return self.first_along if k == len(self.gradients) - 1 else self.later_along

    def _through_softmax(self, p: Tensor, r: Tensor) -> None:
        """The derivative by the logits along ``r`` to the last sensitivity, and that by the targets."""
        torch.mul(p, r, out=self.product)
        r.sub_(torch.sum(self.product, -1, keepdim=True, out=self.sum))
        torch.mul(r, -self.scale, out=self.product)
        self.totals[1].sub_(self.product.mul_(self.rates[0]))
        torch.mul(p, self.scale, out=self.g[-1]).mul_(r)

    def _step(self, before: _Parts, moves: _Parts, after: _Parts) -> None:
        """After = before − α moves."""
        places = zip(before.parts, moves.parts, self.rates, self.scratch.parts, after.parts, strict=True)
        for part, move, rate, scratch, out in places:
            torch.sub(part, torch.mul(move, rate, out=scratch), out=out)

    def _inner_product(self, some: list[Tensor], others: list[Tensor]) -> Tensor:
        total = self.one_rate.zero_()
        for one, other, scratch, flat in zip(some, others, self.scratch.parts, self.flats, strict=True):
            torch.mul(one, other, out=scratch)
            total.add_(flat.sum(1))
        return total
