"""The server's gradients by class and label: written out, or as products of what layers get and send back."""

from __future__ import annotations

import copy
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from fedguard.contracts.data import LabeledData
from fedguard.core.threads import single_thread
from fedguard.geometry.updates import Updates
from fedguard.training.parameters import laid_out, split_parameters

from ._generators import generators
from ._layer_products import LayerProducts, layer_products

#: How far a gradient from products may be from autograd's, relative to its length.
CLOSE = 1e-3

#: Model → whether its gradients are products of what its layers get and send back.
_KNOWN: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


class LabelGradients(Protocol):
    """g_st for every class s and label t, in this order."""

    @property
    def classes(self) -> int:
        """C."""

    @property
    def gram(self) -> NDArray[np.float64]:
        """(C², C²) their inner products."""

    def along(self, updates: Updates) -> NDArray[np.float64]:
        """(n, C²) the updates' inner products with them."""


def label_gradients(model: nn.Module, start: Tensor, data: LabeledData) -> LabelGradients | None:
    """g_st = −∇ of the mean cross-entropy of the inputs of class s with the label t.

    As products if all learned layers are linear ones or convolutions, else written out; both are equal up to
    rounding.

    Returns:
        None if an output of the model has no sample, or a gradient is not finite.
    """
    products = _products(model, start, data)
    if products is not None:
        fits = np.diagonal(products.gram) < float(torch.finfo(torch.float32).max) ** 2  # as if written out
        return products if fits.all() else None
    written = generators(model, start, data)
    return None if written is None else Written(written)


class Written:
    """Gradients written out.

    Args:
        gradients: (C, C, d).
    """

    def __init__(self, gradients: Tensor) -> None:
        self.classes = len(gradients)
        self._directions = gradients.flatten(0, 1)
        self.gram = Updates(self._directions).inner_products.cpu().numpy()

    def along(self, updates: Updates) -> NDArray[np.float64]:
        """(n, C²) inner products, summed in float64."""
        directions = self._directions.to(updates.device)
        start, parts = 0, np.zeros((updates.n, len(directions)))
        for block in updates.blocks():
            stop = start + block.shape[1]
            parts += (block @ directions[:, start:stop].double().T).cpu().numpy()
            start = stop
        return parts


def _products(model: nn.Module, start: Tensor, data: LabeledData) -> LayerProducts | None:
    """The gradients as products; None if they are none, which is tried once for each model."""
    if not _KNOWN.get(model, True):
        return None
    try:
        with single_thread():
            found = layer_products(model, start, data)
            if found is not None and model not in _KNOWN:
                _KNOWN[model] = _agrees(found, model, start, data)
    except RuntimeError:  # a stranger's module may overwrite what a layer gave
        _KNOWN[model], found = False, None
    return found if _KNOWN.get(model) else None


def _agrees(found: LayerProducts, model: nn.Module, start: Tensor, data: LabeledData) -> bool:
    """Whether the gradient of one label for all is autograd's: a module may use weights of a layer itself."""
    network = copy.deepcopy(model).eval()
    named, inputs = laid_out(model, split_parameters(model, start), data.inputs)
    parts = {name: part.detach().clone().requires_grad_() for name, part in named.items()}
    with torch.enable_grad():
        logits = torch.func.functional_call(network, parts, (inputs,))
        loss = -F.cross_entropy(logits, torch.zeros_like(data.labels))
        gradients = torch.autograd.grad(loss, list(parts.values()), allow_unused=True, materialize_grads=True)
    expected = torch.cat([g.flatten() for g in gradients]).double()
    shares = torch.bincount(data.labels, minlength=found.classes).double() / len(data.labels)
    weights = torch.zeros(found.classes, found.classes, dtype=torch.float64, device=shares.device)
    weights[:, 0] = shares
    return bool((found.combined(weights) - expected).norm() <= CLOSE * expected.norm())
