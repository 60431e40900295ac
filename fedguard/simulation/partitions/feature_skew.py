"""Clients whose inputs differ: by noise, rotation and contrast."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from ...core.errors import ParameterError
from . import split_samples
from .base import Split, checked_size


def feature_skew(
    labels: ArrayLike,
    n: int,
    rng: np.random.Generator,
    groups: NDArray[np.int64] | None = None,
    of: str | dict[str, Any] = "iid",
    noise: float = 0.1,
    rotations: list[float] | None = None,
    contrasts: list[float] | None = None,
) -> Split:
    """x̂ = R_i(x̄ + c_i (x − x̄)) + ε,  ε ~ N(0, σ (i + 1)/n): client i sees the world in its own way.

    R_i turns an image counterclockwise by r_i degrees, c_i is the contrast around the image's mean x̄, and the
    noise's variance grows from client to client. Client i has the angle number i mod R of R, and the contrast
    number ⌊i/R⌋ mod C of C, so that every combination occurs. Images stay in [0, 1]. Only training samples
    change: neither the test set nor what the server keeps.

    Args:
        labels: (N,) or (N, …) labels, as the inner partition wants them.
        n: clients.
        rng: the only source of randomness of the inner partition.
        groups: (N,) the natural client of each sample, for an inner partition that asks for it.
        of: the partition that deals the samples: a name, or {name: …, parameters}.
        noise: σ, the variance of the last client's noise; 0 for none.
        rotations: the angles r in degrees; none if absent.
        contrasts: the factors c; 1 if absent.

    Raises:
        ParameterError: nothing would change, a number is out of range, or rotations or contrasts are asked
            of samples that are not images.

    Source: Li et al., Federated Learning on Non-IID Data Silos: An Experimental Study, ICDE 2022,
    "noise-based feature imbalance" (σ = 0.1; clients count from 1); Ghosh et al., An Efficient
    Framework for Clustered Federated Learning, NeurIPS 2020, §6 (rotations 0, 90, 180, 270); contrasts are
    ours.
    """
    checked_size(labels, n)
    angles, factors = rotations or [0.0], contrasts or [1.0]
    _check(noise, angles, factors)
    spec = {"name": of} if isinstance(of, str) else dict(of)
    name = spec.pop("name", None)
    if not isinstance(name, str):
        raise ParameterError(
            f"partition feature_skew: `of` is {of!r}; give a partition's name, or {{name: …}}"
        )
    inner = split_samples(name, labels, n, rng, {"groups": groups}, spec)

    seen = [
        (angles[i % len(angles)], factors[i // len(angles) % len(factors)], noise * (i + 1) / n)
        for i in range(n)
    ]

    def change(client: int, pixels: Tensor, generator: torch.Generator) -> Tensor:
        if inner.change is not None:
            pixels = inner.change(client, pixels, generator)
        return _seen(pixels, *seen[client], generator)

    notes = [
        ", ".join(filter(None, (before, _note(*own))))
        for before, own in zip(inner.notes or [""] * n, seen, strict=True)
    ]
    return Split(inner.parts, change, notes)


def _check(noise: float, angles: list[float], factors: list[float]) -> None:
    if not 0 <= noise <= 1e6:
        raise ParameterError(
            f"partition feature_skew: noise is {noise}; use a variance of at least 0, say 0.1"
        )
    if not all(map(math.isfinite, (*angles, *factors))):
        raise ParameterError("partition feature_skew: rotations and contrasts are finite numbers")
    if not noise and all(a % 360 == 0 for a in angles) and all(c == 1 for c in factors):
        raise ParameterError(
            "partition feature_skew: nothing changes; give noise above 0, rotations such as [0, 90] or "
            "contrasts such as [0.5, 1]"
        )


def _note(angle: float, factor: float, variance: float) -> str:
    words = [f"{angle:g}°"] if angle else []
    words += [f"contrast {factor:g}"] if factor != 1 else []
    words += [f"noise ±{math.sqrt(variance):.2f}"] if variance else []
    return ", ".join(words)


def _seen(pixels: Tensor, angle: float, factor: float, variance: float, generator: torch.Generator) -> Tensor:
    """The samples as one client has them; a new tensor."""
    images = pixels.ndim == 4
    if not pixels.is_floating_point():
        raise ParameterError(
            "partition feature_skew: the inputs are whole numbers, say tokens; use other data"
        )
    if not images and (angle % 360 or factor != 1):
        raise ParameterError(
            f"partition feature_skew: samples of shape {tuple(pixels.shape[1:])} are not images; use noise "
            "alone"
        )
    result = pixels.clone()
    if factor != 1:
        mean = result.mean((1, 2, 3), keepdim=True)
        result = mean + factor * (result - mean)
    if angle % 360:
        result = rotated(result, angle)
    if variance:
        drawn = torch.randn(result.shape, generator=generator, dtype=result.dtype)
        result = result + math.sqrt(variance) * drawn
    return result.clamp(0, 1) if images else result


def rotated(images: Tensor, degrees: float) -> Tensor:
    """(N, C, H, W) turned counterclockwise around the center; exact for quarter turns of square images.

    Other angles interpolate bilinearly; what comes from outside the image is 0.
    """
    quarters = degrees % 360 / 90
    if quarters == 2 or (quarters.is_integer() and images.shape[2] == images.shape[3]):
        return torch.rot90(images, int(quarters), (2, 3))
    angle, (high, wide) = math.radians(degrees), images.shape[2:]
    cos, sin = math.cos(angle), math.sin(angle)
    # Where each target pixel comes from, in coordinates from −1 to 1; y points down.
    turn = images.new_tensor([[cos, -sin * high / wide, 0.0], [sin * wide / high, cos, 0.0]])
    grid = F.affine_grid(turn.expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
