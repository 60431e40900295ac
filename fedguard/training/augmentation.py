"""Augmentation of training images, batch by batch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..contracts.local_training import named
from ..core.errors import ConfigError, ParameterError
from ..core.named_code import load_code
from ..core.params import check_params, nearest
from ..core.seeds import generator as derived

#: A batch of normalized inputs → the batch that the model sees.
Augment: TypeAlias = Callable[[Tensor], Tensor]


def flip(inputs: Tensor, generator: torch.Generator, p: float = 0.5) -> Tensor:
    """Mirror each image left to right with probability p."""
    _check_images(inputs, "flip")
    chosen = torch.rand(len(inputs), generator=generator) < p
    return torch.where(chosen.to(inputs.device)[:, None, None, None], inputs.flip(3), inputs)


def crop(inputs: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Shift each image by up to ``padding`` pixels each way; the border is 0, the normalized mean color."""
    _check_images(inputs, "crop")
    if padding < 1:
        raise ParameterError(f"augment crop: padding is {padding}; use at least 1")
    height, width = inputs.shape[2:]
    padded = F.pad(inputs, (padding,) * 4)
    down, right = torch.randint(0, 2 * padding + 1, (2, len(inputs)), generator=generator).tolist()
    parts = [
        padded[i, :, y : y + height, x : x + width] for i, (y, x) in enumerate(zip(down, right, strict=True))
    ]
    return torch.stack(parts)


#: Augmentations by name.
AUGMENTATIONS: Mapping[str, Callable[..., Tensor]] = {"flip": flip, "crop": crop}


def augmentation(specs: Sequence[str | Mapping[str, Any]], generator: torch.Generator) -> Augment | None:
    """The augmentations in order, with a generator of their own; None without any.

    The generator is derived from the seed of the client's, so that the batches stay what they are without
    augmentation.

    Raises:
        ParameterError: a name or a parameter is unknown.
    """
    if not specs:
        return None
    draw = derived(generator.initial_seed(), "augmentation")
    steps = [functools.partial(_function(spec), generator=draw) for spec in specs]

    def augment(inputs: Tensor) -> Tensor:
        for step in steps:
            inputs = step(inputs)
        return inputs

    return augment


def check_augmentation(specs: Sequence[str | Mapping[str, Any]], inputs: Tensor) -> None:
    """Augment two samples.

    Raises:
        ParameterError: a name or a parameter is unknown, or a function changes the samples' shape.
    """
    augment = augmentation(specs, torch.Generator().manual_seed(0))
    try:
        found = inputs if augment is None else augment(inputs)
    except ParameterError:
        raise
    except Exception as error:  # somebody's function may raise anything
        raise ParameterError(f"training.augment fails on samples of zeros: {error}") from error
    if not isinstance(found, Tensor) or found.shape != inputs.shape:
        raise ParameterError(
            f"training.augment makes {tuple(getattr(found, 'shape', ()))} of samples of shape "
            f"{tuple(inputs.shape)}; it has to keep the shape"
        )


def _function(spec: str | Mapping[str, Any]) -> Callable[..., Tensor]:
    name, params = named(spec)
    if ":" in name:
        try:
            function = load_code(name, "augmentation")
        except ConfigError as error:
            raise ParameterError(f"training.augment: {error}") from error
    elif name in AUGMENTATIONS:
        function = AUGMENTATIONS[name]
    else:
        known = (
            f"{nearest(name, AUGMENTATIONS)} (known: {', '.join(AUGMENTATIONS)}; your own: 'module:function')"
        )
        raise ParameterError(f"unknown augmentation {name!r}{known}")
    given = check_params(function, params, f"augment {name}", frozenset({"inputs", "generator"}))
    return functools.partial(function, **given) if given else function


def _check_images(inputs: Tensor, name: str) -> None:
    if inputs.ndim != 4:
        raise ParameterError(
            f"augment {name} needs images (samples, channels, height, width), got {tuple(inputs.shape)}"
        )
