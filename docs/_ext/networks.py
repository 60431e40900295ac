"""The reference page of models, written from the classes that build them."""

from __future__ import annotations

import inspect
from typing import Any

from fedguard.simulation.models import models

from .methods import _defaults, _title

#: Models of libraries that stand for their kin.
EXAMPLES = ("torchvision:resnet18",)


def page() -> str:
    """reStructuredText: every model with its parameters."""
    lines = [
        _title("Models", "="),
        "A suite names one as ``model``; ``fedguard list models`` lists the built-in ones.",
        "",
        ":doc:`/how-to/your-own-model` shows how to use your own.",
        "",
    ]
    for name in (*models.names(), *EXAMPLES):
        maker = models.get(name)
        lines += [_title(name, "-"), _entry(maker), _defaults(maker, models.offers), ""]
    return "\n".join(lines)


def _entry(maker: Any) -> str:
    """The docstring of a class as Sphinx shows it; of a library's model, its one line."""
    if inspect.isclass(maker):
        return f".. autoclass:: {maker.__module__}.{maker.__qualname__}\n   :no-index-entry:\n"
    return f"{inspect.getdoc(maker)}\n"
