"""Models of libraries, ``torchvision:NAME`` and ``timm:NAME``: those that the library itself lists.

Nothing is downloaded: weights are initialized, or come from a file.
"""

from __future__ import annotations

import functools
from typing import Any

from torch import nn

from ...core.errors import ParameterError
from ...core.extras import extra_module
from ...core.params import nearest
from ..parts import Maker
from .base import Shape, require_images
from .weights import load_weights

#: What would make the libraries download weights, or read files by other ways than ``weights``.
REFUSED = (
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "weights_backbone",
    "cache_dir",
)
#: Without them these two return a tuple in training mode, and warn.
SPECIAL = {name: {"aux_logits": False, "init_weights": True} for name in ("googlenet", "inception_v3")}


@functools.cache
def torchvision_model(name: str) -> Maker:
    """The maker of a classification model of torchvision, by the name that its ``list_models`` gives it."""
    from ..vision import torchvision

    library = torchvision.models
    _check_listed("torchvision", name, library.list_models(module=library))

    def make(input_shape: Shape, num_classes: int, weights: str | None = None, **params: Any) -> nn.Module:
        require_images(f"torchvision:{name}", input_shape)
        if input_shape[0] != 3:
            raise ParameterError(
                f"model torchvision:{name} takes images of 3 channels, the data have {input_shape[0]}; use "
                f"timm:{name}, which takes any number, or a model of your own"
            )
        settings = {**SPECIAL.get(name, {}), **params}
        return _made(f"torchvision:{name}", library.get_model_builder(name), weights, num_classes, settings)

    make.__doc__ = f"``{name}`` of torchvision, on color images; weights are none, or a file's."
    return make


@functools.cache
def timm_model(name: str) -> Maker:
    """The maker of a model of timm (an extra), by the name that its ``list_models`` gives it."""
    from .. import vision  # noqa: F401 - timm imports torchvision, which may need its operators declared

    library = extra_module("timm", "timm", f"model timm:{name}")
    _check_listed("timm", name, library.list_models())

    def make(input_shape: Shape, num_classes: int, weights: str | None = None, **params: Any) -> nn.Module:
        require_images(f"timm:{name}", input_shape)
        build = functools.partial(
            library.create_model, name, pretrained=False, in_chans=params.pop("in_chans", input_shape[0])
        )
        return _made(f"timm:{name}", build, weights, num_classes, params)

    make.__doc__ = f"``{name}`` of timm, for images of any number of channels; weights are none, or a file's."
    return make


def _check_listed(library: str, name: str, names: list[str]) -> None:
    if name not in names:
        wanted, close = f"{library}:{name}", nearest(name, names, f"{library}:")
        raise ParameterError(
            f"unknown model {wanted!r}{close} ({library} lists {len(names)} models: "
            f"{library}.{'models.' if library == 'torchvision' else ''}list_models())"
        )


def _made(
    name: str, build: Maker, weights: str | None, num_classes: int, params: dict[str, Any]
) -> nn.Module:
    refused = next((word for word in REFUSED if word in params), None)
    if refused is not None:
        raise ParameterError(f"model {name}: {refused} is not for suites; weights: PATH loads a file")
    try:
        model = build(num_classes=num_classes, **params)
    except Exception as error:  # a library's constructor may raise anything
        raise ParameterError(f"model {name}: {type(error).__name__}: {error}") from error
    load_weights(name, model, weights)
    return model  # type: ignore[no-any-return]
