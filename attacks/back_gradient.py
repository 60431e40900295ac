"""Back-gradient poisoning: training samples optimized to damage the trained model."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.attack import Attack, DataView, Knowledge
from fedguard.contracts.card import Card
from fedguard.contracts.data import Samples
from fedguard.core.errors import ParameterError

from ._checks import require_positive


class BackGradient(Attack):
    """D ∪ D_p with D_p = argmax L(D_val, w_T), w_{t+1} = w_t − η ∇_w L(D_tr ∪ D_p, w_t), w_0 = 0.

    L is the cross-entropy of a softmax regression that the attacker trains. Gradient ascent moves the pixels
    of all points in D_p: the gradient of the validation loss is propagated back through all T training
    steps, each ascent step has a fixed length, and pixels are clamped to [0, 1]. Labels do not change. A
    point starts as a copy of a random training sample with a random other label. The ascent ends when the
    loss rises by less than ``tolerance``; the best points found are used.

    Differences from the papers: Muñoz-González et al. optimize one point at a time and retrace the training
    steps. This class moves all points at once and stores the steps, which gives the same gradient for little
    memory. Each malicious client optimizes its points by itself. With ``knowledge: partial`` it knows its own
    data only, a random half of which is D_tr and the other half D_val; with "full", as Fang et al. give it,
    D_tr and D_val are halves of what *all* clients have. The attacker's model
    starts from zero instead of the global model, which data poisoning does not see. A client with a single
    sample does not change it.

    Args:
        distribution: "uniform": every malicious client adds points; "single": the first one adds the points
            of all, the others add none (the two scenarios of Fang et al.).
        fraction: points per malicious client, as a share of its own samples (at most ``max_samples``); at
            least one point. 0.2 is Fang et al.'s 240 points for 20 clients of 60 samples.
        max_samples: the most samples that a client uses, drawn at random; 6,000 in Fang et al. Muñoz-González
            et al. have at most 1,000 for training; time grows with the square.
        steps: T, the number of training steps; 60 in Muñoz-González et al. for multiclass regression.
        lr: η; the papers do not say, their code has 0.1.
        iterations: the most ascent steps; 0 leaves copies with random wrong labels.
        step_size: the Euclidean length of an ascent step in pixel space, for each point; as in their code.
        tolerance: the ascent ends when the validation loss rises by less.
        knowledge: "partial" or "full", see above.

    Raises:
        ParameterError: a parameter out of range.

    Source: Muñoz-González et al., AISec 2017, Algorithms 1 to 3; Fang et al., USENIX Security 2020, §4.4.
    """

    card = Card(
        "back_gradient",
        "add samples optimized for the damage to the trained model",
        "Muñoz-González et al., Back-gradient Optimization, AISec 2017",
    )
    kind = "data"
    knowledge = frozenset({"data"})

    def __init__(
        self,
        distribution: Literal["uniform", "single"] = "uniform",
        fraction: float = 0.2,
        max_samples: int = 500,
        steps: int = 60,
        lr: float = 0.1,
        iterations: int = 30,
        step_size: float = 1.0,
        tolerance: float = 1e-6,
        knowledge: Knowledge = "partial",
    ) -> None:
        if knowledge not in ("full", "partial"):
            raise ParameterError(f"back_gradient: knowledge is {knowledge!r}; use 'full' or 'partial'")
        if distribution not in ("uniform", "single"):
            raise ParameterError(
                f"back_gradient: distribution is {distribution!r}; use 'uniform' or 'single'"
            )
        require_positive("back_gradient", "fraction", fraction)
        require_positive("back_gradient", "lr", lr)
        require_positive("back_gradient", "step_size", step_size)
        if max_samples < 2:
            raise ParameterError(f"back_gradient: max_samples is {max_samples}; use at least 2")
        if steps < 1:
            raise ParameterError(f"back_gradient: steps is {steps}; use at least 1")
        if iterations < 0:
            raise ParameterError(f"back_gradient: iterations is {iterations}; it cannot be negative")
        if not 0 <= tolerance < math.inf:
            raise ParameterError(
                f"back_gradient: tolerance is {tolerance}; use a finite number of at least 0"
            )
        self.knowledge = frozenset({"data"} if knowledge == "full" else ())
        self.distribution = distribution
        self.fraction = fraction
        self.max_samples = max_samples
        self.steps = steps
        self.lr = lr
        self.iterations = iterations
        self.step_size = step_size
        self.tolerance = tolerance

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Refuse data other than images, which have no common range of values, and a single class."""
        if len(input_shape) != 3:
            raise ParameterError(
                f"back_gradient: points are kept in [0, 1], which needs images (channels, height, width), "
                f"but one input has shape {tuple(input_shape)}"
            )
        if num_classes < 2:
            raise ParameterError("back_gradient: with one class there is no wrong label; use more classes")

    def poison_data(self, samples: Samples, view: DataView) -> Samples:
        """The local data, followed by the optimized points."""
        single = self.distribution == "single"
        if len(samples.labels) < 2 or (single and view.rank > 0):
            return samples
        device, own = samples.labels.device, min(len(samples.labels), self.max_samples)
        known = samples if view.everybody is None else view.everybody
        order = torch.randperm(len(known.labels), generator=view.generator)[: self.max_samples].to(device)
        n = len(order)
        train, held_out = known.take(order[n // 2 :]), known.take(order[: n // 2])
        count = max(1, round(self.fraction * own)) * (view.num_malicious if single else 1)
        chosen = torch.randint(len(train.labels), (count,), generator=view.generator).to(device)
        shift = torch.randint(1, view.num_classes, (count,), generator=view.generator).to(device)
        points = train.take(chosen)
        wrong = ((points.labels + shift) % view.num_classes).to(points.labels.dtype)
        points = self.optimize(Samples(points.pixels, wrong), train, held_out, view.num_classes)
        return Samples(torch.cat([samples.pixels, points.pixels]), torch.cat([samples.labels, points.labels]))

    def optimize(self, points: Samples, train: Samples, held_out: Samples, num_classes: int) -> Samples:
        """The best points found by gradient ascent on the held-out loss, starting from these points."""
        wanted = F.one_hot(torch.cat([train.labels, points.labels]).long(), num_classes).double()
        fixed, judged = inputs(train.pixels), inputs(held_out.pixels)

        def damage(pixels: Tensor) -> Tensor:
            x = torch.cat([fixed, inputs(pixels)])
            return F.cross_entropy(judged @ x.T @ self._trained(x @ x.T, wanted), held_out.labels.long())

        climb = torch.func.grad_and_value(damage)
        pixels = best = points.pixels.double()
        highest = before = -math.inf
        for iteration in range(self.iterations + 1):
            gradient, loss = climb(pixels)
            if loss > highest:
                best, highest = pixels, float(loss)
            if loss - before < self.tolerance or iteration == self.iterations:
                break
            before = float(loss)
            directions = F.normalize(gradient.flatten(1)).view_as(gradient)  # 0 where it vanishes
            pixels = (pixels + self.step_size * directions).clamp(0, 1)
        return Samples(best.to(points.pixels.dtype), points.labels)

    def _trained(self, kernel: Tensor, wanted: Tensor) -> Tensor:
        """(n, classes) a_T of the trained weights w_T = Xᵀ a_T, differentiable in the kernel X Xᵀ.

        Gradient descent from w_0 = 0 stays in the span of the samples; n is much smaller than the dimension.
        """
        a = torch.zeros_like(wanted)
        for _ in range(self.steps):
            a = a - self.lr / len(a) * (torch.softmax(kernel @ a, 1) - wanted)
        return a


def inputs(pixels: Tensor) -> Tensor:
    """(n, features + 1) float64 rows with a 1 at the end, for the bias."""
    flat = pixels.flatten(1).double()
    return torch.cat([flat, flat.new_ones(len(flat), 1)], 1)
