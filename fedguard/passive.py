"""Passive attacks: reconstruct training data from a client's update."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from .contracts.attack import Attack
from .contracts.local_training import LocalTraining
from .core.errors import ParameterError
from .training.parameters import split_parameters


@dataclass(frozen=True)
class Leak:
    """What a passive attacker (for example a curious server) sees of one client in one round.

    Attributes:
        model: the architecture.
        global_params: (d,) w_{t−1}.
        update: (d,) the client's update.
        input_shape: the shape of one input.
        num_classes: the number of labels.
        count: the number of samples to reconstruct: the client's claimed count, or a guess.
        gradient_scale: η in update ≈ −η × the gradient of the mean loss: the learning rate for one step,
            about rate × steps for several.
        bounds: the smallest and the largest value of an input, as tensors that broadcast to its shape.
        generator: the attacker's randomness.
        start: initial inputs and label logits instead of noise, for example those that a defense distilled.
        training: the configuration of local training, if the attacker knows it.
    """

    model: nn.Module
    global_params: Tensor
    update: Tensor
    input_shape: tuple[int, ...]
    num_classes: int
    count: int
    gradient_scale: float
    bounds: tuple[Tensor, Tensor]
    generator: torch.Generator
    start: tuple[Tensor, Tensor] | None = None
    training: LocalTraining | None = None

    @property
    def gradient(self) -> Tensor:
        """(d,) −update / gradient_scale: the estimated gradient of the mean loss."""
        return -self.update / self.gradient_scale

    def noise(self) -> Tensor:
        """(count, *input_shape) standard normal inputs."""
        return torch.randn((self.count, *self.input_shape), generator=self.generator)


class Reconstruction(NamedTuple):
    """The result of a passive attack.

    Attributes:
        inputs: (k, *input_shape) reconstructed inputs; None if the attack finds labels only.
        labels: (k,) reconstructed labels, in no particular order; None if the attack finds inputs only.
    """

    inputs: Tensor | None
    labels: Tensor | None


class PassiveAttack(Attack):
    """Reconstructs training data from updates and changes nothing. Override ``reconstruct``.

    It is the server's, or an eavesdropper's: in a federation there are no malicious clients beside it.
    """

    kind = "passive"
    goal = "none"
    tasks = frozenset({"classification"})

    @abstractmethod
    def reconstruct(self, leak: Leak) -> Reconstruction:
        """The reconstructed inputs and labels of the client."""

    def check(self, input_shape: tuple[int, ...], num_classes: int, n: int, m: int) -> None:
        """Raise ParameterError for inputs that are not images: what leaks is measured on pixels."""
        if len(input_shape) != 3:
            raise ParameterError(f"{self.name}: leaks are measured on images, the inputs are {input_shape}")


def loss_gradient(leak: Leak, inputs: Tensor, targets: Tensor) -> Tensor:
    """(d,) the gradient of the mean cross-entropy at w_{t−1}; it is differentiable itself.

    Args:
        leak: provides the model and w_{t−1}.
        inputs: (k, *input_shape).
        targets: (k,) labels, or (k, classes) probabilities.
    """
    parameters = {
        name: part.detach().requires_grad_()
        for name, part in split_parameters(leak.model, leak.global_params).items()
    }
    loss = F.cross_entropy(torch.func.functional_call(leak.model, parameters, (inputs,)), targets)
    parts = torch.autograd.grad(
        loss, list(parameters.values()), create_graph=True, allow_unused=True, materialize_grads=True
    )
    return torch.cat([part.flatten() for part in parts])


def psnr(first: Tensor, second: Tensor) -> float:
    """10 · log₁₀(1 / MSE) in dB, for pixels in [0, 1]; +Inf for equal images."""
    error = float((first.double() - second.double()).square().mean())
    return float("inf") if error == 0 else float(-10 * np.log10(error))


def ssim(first: Tensor, second: Tensor) -> float:
    """Mean structural similarity in [−1, 1] of two images (channels, height, width) with pixels in [0, 1].

    Gaussian window with σ = 1.5 cut at 11 pixels, K = (0.01, 0.03), reflected borders.

    Source: Wang et al., Image Quality Assessment, IEEE TIP 2004.
    """
    return float(np.mean([_ssim(a, b) for a, b in zip(first.numpy(), second.numpy(), strict=True)]))


def _ssim(first: NDArray[np.float32], second: NDArray[np.float32]) -> float:
    from scipy.ndimage import gaussian_filter  # a slow import

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        smooth: NDArray[np.float64] = gaussian_filter(image, 1.5, truncate=3.5)
        return smooth

    x, y = first.astype(float), second.astype(float)
    mx, my = mean(x), mean(y)
    vx, vy, both = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    table = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return float(table.mean())


def measure(
    found: Reconstruction, pixels: Tensor | None, original: Tensor, labels: Tensor
) -> dict[str, float]:
    """Compare a reconstruction with the original data.

    Args:
        found: the reconstruction; only its labels are used.
        pixels: (k, channels, height, width) reconstructed images in [0, 1]; None if there are none.
        original: (n, channels, height, width) the client's images in [0, 1].
        labels: (n,) their labels.

    Returns:
        "psnr" (dB) and "ssim", means over the reconstructed images, each compared with a different original
        (the pairing with the smallest total squared error); "labels", the share of the true labels found,
        counted as multisets. NaN for what the attack does not reconstruct.
    """
    from scipy.optimize import linear_sum_assignment  # a slow import

    result = dict.fromkeys(("psnr", "ssim", "labels"), float("nan"))
    if pixels is not None:
        errors = torch.cdist(pixels.flatten(1).double(), original.flatten(1).double()).square()
        pairs = list(zip(*linear_sum_assignment(errors.numpy()), strict=True))
        result["psnr"] = float(np.mean([psnr(pixels[i], original[j]) for i, j in pairs]))
        result["ssim"] = float(np.mean([ssim(pixels[i], original[j]) for i, j in pairs]))
    if found.labels is not None:
        classes = int(max(labels.max(), found.labels.max() if len(found.labels) else 0)) + 1
        counts = [torch.bincount(part, minlength=classes) for part in (found.labels, labels)]
        result["labels"] = float(torch.minimum(*counts).sum() / len(labels))
    return result
