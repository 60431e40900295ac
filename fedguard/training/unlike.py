"""Inputs unlike the clients' data, which a server makes itself or reads from a file."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..core.errors import ParameterError

#: The smallest and the largest side of a crop of a photograph, as shares of its shorter side.
CROPS = (0.1, 0.6)


def unlike_inputs(
    source: str, count: int, shape: tuple[int, ...], draw: torch.Generator, standardize: bool = True
) -> Tensor:
    """(count, *shape) inputs.

    Args:
        source: "noise" (uniform), "photos" (square crops of the two photographs that come with scikit-learn,
            gray if the data are) or the path of an .npy file with images of the right size (uint8, or numbers
            in [0, 1]), of which ``count`` are drawn.
        count: how many.
        shape: of one input.
        draw: all random numbers come from it.
        standardize: bring every channel (of images; otherwise all numbers) to mean 0 and standard deviation
            1, as suites normalize data; without it, pixels stay in [0, 1].

    Raises:
        ParameterError: photographs for data that are not images, or a file that cannot be read, does not fit
            or holds too few.
    """
    if source == "noise":
        pixels = torch.rand((count, *shape), generator=draw)
    elif source == "photos":
        pixels = _crops(count, shape, draw)
    else:
        found = _from_file(source, count, shape)
        pixels = found[torch.randperm(len(found), generator=draw)[:count]]
    if not standardize:
        return pixels
    axes = (0, 2, 3) if pixels.ndim == 4 else tuple(range(pixels.ndim))
    mean, std = pixels.mean(axes, keepdim=True), pixels.std(axes, unbiased=False, keepdim=True)
    return (pixels - mean) / torch.where(std > 0, std, torch.ones_like(std))


def _crops(count: int, shape: tuple[int, ...], draw: torch.Generator) -> Tensor:
    """(count, channels, height, width) squares of random place and size, resized."""
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise ParameterError(
            f"photos are gray or color images, and inputs have shape {tuple(shape)}; use 'noise'"
        )
    photos, crops = _photos(shape[0] == 1), []
    for which, *numbers in torch.rand((count, 4), generator=draw).double().tolist():
        photo = photos[int(which * len(photos))]
        height, width = photo.shape[1:]
        low, high = (share * min(height, width) for share in CROPS)
        side = int(low + numbers[0] * (high - low))
        top, left = int(numbers[1] * (height - side)), int(numbers[2] * (width - side))
        square = photo[None, :, top : top + side, left : left + side]
        crops.append(F.interpolate(square, shape[1:], mode="bilinear", antialias=True))
    return torch.cat(crops).clamp(0, 1)


@functools.lru_cache(maxsize=2)
def _photos(gray: bool) -> tuple[Tensor, ...]:
    """(channels, height, width) each, pixels in [0, 1]."""
    from sklearn.datasets import load_sample_images  # a slow import

    try:
        images = load_sample_images().images
    except ImportError as error:  # scikit-learn decodes them with Pillow
        raise ParameterError(f"photos: {error}; install Pillow, or use 'noise' or a file") from None
    colors = [torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 for image in images]
    return tuple(color.mean(0, keepdim=True) if gray else color for color in colors)


@functools.lru_cache(maxsize=2)
def _images(path: str) -> Tensor:
    try:
        array = np.load(Path(path).expanduser(), allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "uif":
            raise ValueError("not one array of numbers")
    except (OSError, ValueError, EOFError) as error:
        raise ParameterError(f"file {path}: {error}; it must be an .npy file with images") from None
    numbers = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if not (numbers >= 0).all() or not (numbers <= 1).all():
        raise ParameterError(f"file {path}: it has pixels outside [0, 1]")
    return torch.from_numpy(numbers)


def _from_file(path: str, count: int, shape: tuple[int, ...]) -> Tensor:
    images = _images(path)
    if len(shape) == 3 and shape[0] == 1 and images.ndim == 3:
        images = images[:, None]
    if images.ndim != len(shape) + 1 or tuple(images.shape[1:]) != tuple(shape):
        raise ParameterError(
            f"file {path}: it has images of shape {tuple(images.shape[1:])}, the data {tuple(shape)}"
        )
    if len(images) < count:
        raise ParameterError(f"file {path}: it has {len(images)} images; {count} are needed")
    return images
