"""Gradients by class and label without writing them out: what layers get times what they send back."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import cached_property, partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from fedguard.contracts.data import LabeledData
from fedguard.geometry.updates import Updates
from fedguard.training.parameters import fitting, laid_out, split_parameters

#: How many numbers of updates are multiplied with gradients at a time.
CHUNK = 2**20


class Product(NamedTuple):
    """The gradients of a matrix of weights: Σ_k δ_kt x_k' over the samples k of a class, t the label.

    Attributes:
        span: where the matrix lies among the model's parameters.
        inputs: (K, i) x.
        back: (K, C, o) δ.
    """

    span: slice
    inputs: Tensor
    back: Tensor


class Columns(NamedTuple):
    """Other parameters: where they lie, and (C², w) their gradients."""

    span: slice
    gradients: Tensor


class Call(NamedTuple):
    """What a layer got and gave."""

    got: Tensor
    gave: Tensor


class LayerProducts:
    """⟨u, g⟩ = Σ_k ⟨δ_k, U x_k⟩,  ⟨g, h⟩ = Σ_kl ⟨δ_k, η_l⟩ ⟨x_k, y_l⟩ for g = Σ_k δ_k x_k', h = Σ_l η_l y'_l

    That takes less time and memory than the (C, C, d) gradients of wide layers. Sums are in float64.

    Args:
        held: (C,) the number of samples of each class; samples are in the order of the classes.
        size: the number of the model's parameters.
        products: of the linear layers' weights.
        columns: of all other parameters.
    """

    def __init__(
        self, held: list[int], size: int, products: Sequence[Product], columns: Sequence[Columns]
    ) -> None:
        self.classes = len(held)
        self._held, self._size, self._products, self._columns = held, size, products, columns

    @cached_property
    def gram(self) -> NDArray[np.float64]:
        """(C², C²) the gradients' inner products."""
        parts = [part.gradients @ part.gradients.T for part in self._columns]
        parts += [torch.cat(list(self._rows(part))) for part in self._products]
        total = torch.stack(parts).sum(0)
        return np.asarray(((total + total.T) / 2).cpu().numpy())  # symmetric only up to rounding

    def _rows(self, part: Product) -> Iterator[Tensor]:
        """(C, C²) a product's inner products, class by class."""
        count, labels, width = part.back.shape
        inputs, everyone = part.inputs @ part.inputs.T, part.back.reshape(count * labels, width)
        start = 0
        for held in self._held:
            mine = slice(start, start + held)
            each = part.back[mine].reshape(held * labels, width) @ everyone.T
            each = each.view(held, labels, count, labels) * inputs[mine, None, :, None]
            yield self._by_class(each.sum(0).transpose(0, 1)).transpose(0, 1).reshape(labels, -1)
            start += held

    def _by_class(self, samples: Tensor) -> Tensor:
        """(C, …) sums over the samples of each class."""
        return torch.stack([part.sum(0) for part in torch.split(samples, self._held)])

    def along(self, updates: Updates) -> NDArray[np.float64]:
        """(n, C²) the updates' inner products with the gradients."""
        step = max(1, CHUNK // self._size)
        found = []
        for start in range(0, updates.n, step):
            rows = [updates.row(i) for i in range(start, min(start + step, updates.n))]
            found.append(self._along(torch.stack(rows)))
        return np.asarray(torch.cat(found).cpu().numpy()) if found else np.zeros((0, self.classes**2))

    def _along(self, rows: Tensor) -> Tensor:
        total = rows.new_zeros((len(rows), self.classes**2), dtype=torch.float64)
        for columns in self._columns:
            total += rows[:, columns.span].double() @ columns.gradients.to(rows.device).T
        for part in self._products:
            inputs, back = part.inputs.to(rows.device), part.back.to(rows.device)
            weights = rows[:, part.span].double().reshape(-1, inputs.shape[1])
            passed = (weights @ inputs.T).view(len(rows), -1, len(inputs))  # (n, o, K)
            each = back @ passed.permute(2, 1, 0)  # (K, C, n)
            total += self._by_class(each).flatten(0, 1).T
        return total

    def combined(self, weights: Tensor) -> Tensor:
        """(d,) Σ_st a_st g_st for (C, C) weights a."""
        found = weights.new_zeros(self._size)
        for columns in self._columns:
            found[columns.span] = weights.flatten() @ columns.gradients
        held = torch.tensor(self._held, device=weights.device)
        each = weights.repeat_interleave(held, 0)
        for part in self._products:
            found[part.span] = (torch.einsum("kt,kto->ok", each, part.back) @ part.inputs).flatten()
        return found


def layer_products(model: nn.Module, start: Tensor, data: LabeledData) -> LayerProducts | None:
    """g_st = −∇ of the mean cross-entropy of the inputs of class s with the label t, as products.

    C backward passes over all samples, each as far as what the first layer gives.

    Returns:
        None if the model has learned layers other than linear ones and convolutions, or does not call each of
        them once, linear ones on vectors; or if an output of the model has no sample.
    """
    owners = _owners(model, len(start))
    if owners is None:
        return None
    labels, counts = torch.unique(data.labels, return_counts=True)
    order = torch.argsort(data.labels, stable=True)
    logits, calls = _listened(model, start, data.inputs[order], {layer for layer, _ in owners})
    if logits.shape[1:] != labels.shape or not all(
        _usual(heard, model, name) for name, heard in calls.items()
    ):
        return None
    held = counts.tolist()
    back = _sent_back(logits, [heard[0].gave for heard in calls.values()], held)
    sent = dict(zip(calls, zip(*back, strict=True), strict=True))
    products, columns = [], []
    for (layer, kind), span in zip(owners, _spans(model, len(start)), strict=True):
        got, module = calls[layer][0].got, model.get_submodule(layer)
        if kind == "bias":
            columns.append(Columns(span, _of_bias(sent[layer], held)))
        elif isinstance(module, nn.Conv2d):
            columns.append(Columns(span, _of_convolution(module, got, sent[layer], held)))
        else:
            products.append(Product(span, got.double(), torch.stack(sent[layer], 1).double()))
    return LayerProducts(held, len(start), products, columns)


def _owners(model: nn.Module, size: int) -> list[tuple[str, str]] | None:
    """Every parameter's layer, and whether it is its weight or its bias; None for layers of another kind."""
    found = []
    for name in fitting(model, size):
        layer, _, kind = name.rpartition(".")
        part = model.get_submodule(layer)
        plain = type(part) is nn.Conv2d and part.padding_mode == "zeros" and not isinstance(part.padding, str)
        if not plain and type(part) is not nn.Linear:
            return None
        found.append((layer, kind))
    return found


def _usual(calls: Sequence[Call], model: nn.Module, name: str) -> bool:
    """Whether a layer was called once, with a batch of vectors or images."""
    shape = 4 if isinstance(model.get_submodule(name), nn.Conv2d) else 2
    return len(calls) == 1 and calls[0].gave.ndim == shape


def _spans(model: nn.Module, size: int) -> Iterator[slice]:
    """Where each parameter lies."""
    start = 0
    for part in fitting(model, size).values():
        yield slice(start, start + part.numel())
        start += part.numel()


def _listened(
    model: nn.Module, start: Tensor, inputs: Tensor, layers: set[str]
) -> tuple[Tensor, dict[str, list[Call]]]:
    """The logits, and the calls of each layer, by name."""
    network = copy.deepcopy(model).eval()  # as for predictions: no dropout
    calls: dict[str, list[Call]] = {}
    for name, part in network.named_modules():
        if name in layers:
            part.register_forward_hook(partial(_listen, calls.setdefault(name, [])))
    named, inputs = laid_out(model, split_parameters(model, start), inputs)
    with torch.enable_grad():
        frozen = {name: part.detach() for name, part in named.items()}
        return torch.func.functional_call(network, frozen, (inputs,)), calls


def _listen(calls: list[Call], layer: nn.Module, got: tuple[Tensor, ...], gave: Tensor) -> None:
    """Note a call; the graph starts at what the first layer gives."""
    calls.append(Call(got[0].detach(), gave if gave.requires_grad else gave.requires_grad_()))


def _sent_back(logits: Tensor, gave: Sequence[Tensor], held: list[int]) -> list[tuple[Tensor, ...]]:
    """By label, minus the derivative of the mean cross-entropy of each sample's class by what layers gave."""
    shares = torch.softmax(logits.detach(), 1)
    weights = torch.cat([shares.new_full((count, 1), 1 / count) for count in held])
    found = []
    for label in torch.eye(len(held), dtype=shares.dtype, device=shares.device):
        push = (label - shares) * weights
        found.append(
            torch.autograd.grad(
                logits, list(gave), push, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        )
    return found


def _of_convolution(layer: nn.Conv2d, got: Tensor, sent: Sequence[Tensor], held: list[int]) -> Tensor:
    """(C², w) the gradients of a convolution's weights."""
    size, places = list(layer.weight.shape), (layer.stride, layer.padding, layer.dilation)
    found = got.new_empty((len(held), len(sent), layer.weight.numel()))
    for t, back in enumerate(sent):
        pairs = zip(torch.split(got, held), torch.split(back, held), strict=True)
        for s, (mine, theirs) in enumerate(pairs):
            gradient = conv2d_weight(mine, size, theirs, *places, layer.groups)  # type: ignore[no-untyped-call]
            found[s, t] = gradient.flatten()
    return found.flatten(0, 1).double()


def _of_bias(sent: Sequence[Tensor], held: list[int]) -> Tensor:
    """(C², o) the gradients of a layer's biases: what it sent back, summed over places and samples."""
    each = torch.stack([(back.flatten(2).sum(2) if back.ndim == 4 else back) for back in sent], 1).double()
    return torch.stack([part.sum(0) for part in torch.split(each, held)]).flatten(0, 1)
