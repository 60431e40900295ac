"""The only import of torchvision; other modules import it from here.

The torchvision wheel of the ordinary package index is built for CUDA. On a CPU build of torch its
compiled operators cannot be loaded, and the import dies with ``operator torchvision::nms does not exist``,
although data sets, transforms and models do not use them. Exactly two operator schemas are missing; they
are declared here (without kernels) if, and only if, the compiled ones cannot be loaded.
"""

from __future__ import annotations

import importlib.util
from importlib.machinery import PathFinder

import torch

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _compiled_operators_load() -> bool:
    """Whether torchvision's extension can be loaded; loading it twice is harmless."""
    package = importlib.util.find_spec("torchvision")
    if package is None or package.submodule_search_locations is None:
        return True  # the import below reports what is wrong
    extension = PathFinder.find_spec("_C", package.submodule_search_locations)
    if extension is None or extension.origin is None:
        return False
    try:
        torch.ops.load_library(extension.origin)  # type: ignore[no-untyped-call]
    except (ImportError, OSError):
        return False
    return True


def _declare_operators() -> torch.library.Library | None:
    """Declare the schemas that the import needs; they live as long as the returned object."""
    if _compiled_operators_load():
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + _SCHEMA)  # type: ignore[no-untyped-call]
    return library


_LIBRARY = _declare_operators()

import torchvision  # noqa: E402 - needs the operators
from torchvision import datasets  # noqa: E402

__all__ = ["datasets", "torchvision"]
