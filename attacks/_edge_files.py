"""Edge cases from another source: images in a file."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedguard.core.errors import ParameterError


class EdgeImages(NamedTuple):
    """Images of another source, pixels in [0, 1].

    Attributes:
        train: (k, channels, height, width) those that attackers train on.
        test: (t, channels, height, width) those that success is measured on.
    """

    train: Tensor
    test: Tensor


@functools.lru_cache(maxsize=4)
def edge_images(path: str) -> EdgeImages:
    """The arrays ``train`` and ``test`` of an .npz file: uint8, or numbers in [0, 1].

    Images without a channel axis (k, height, width) get one. Nothing is unpickled.

    Raises:
        ParameterError: the file cannot be read, or holds something else.
    """
    try:
        with np.load(Path(path).expanduser(), allow_pickle=False) as file:
            return EdgeImages(*(_pixels(file[name], name) for name in EdgeImages._fields))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise ParameterError(
            f"edge_case: file {path}: {error}; it must be an .npz file with the image arrays train and test"
        ) from None


def _pixels(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]], name: str) -> Tensor:
    if array.ndim not in (3, 4) or len(array) == 0:
        raise ValueError(f"{name} has shape {array.shape}, not (images, channels, height, width)")
    numbers = array.astype(np.float32) / (255 if array.dtype == np.uint8 else 1)
    if not (numbers >= 0).all() or not (numbers <= 1).all():
        raise ValueError(f"{name} has pixels outside [0, 1]")
    return torch.from_numpy(numbers if array.ndim == 4 else numbers[:, None])
