"""Channels-last memory order, where a model bears it."""

from __future__ import annotations

import copy
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

#: Model → shape of one input → whether it computes on channels-last images and weights.
_KNOWN: WeakKeyDictionary[nn.Module, dict[tuple[int, ...], bool]] = WeakKeyDictionary()


def channels_last(images: Tensor) -> Tensor:
    """(N, C, H, W) in channels-last memory order; copies only if needed."""
    if images.stride(1) == 1 and images.stride(3) == images.shape[1]:
        return images
    return images.permute(0, 2, 3, 1).clone(memory_format=torch.contiguous_format).permute(0, 3, 1, 2)


def store_channels_last(model: nn.Module) -> None:
    """Store convolution weights channels-last, which makes convolutions and pooling twice as fast."""
    for module in model.modules():
        if type(module) is nn.Conv2d:
            module.weight.data = channels_last(module.weight.data)


def bears_channels_last(model: nn.Module, inputs: Tensor) -> bool:
    """Whether the model computes on images and convolution weights in channels-last order.

    A module that calls ``view`` on them raises. The model is tried once, on zeros, so the answer depends
    on the model and the shape of its inputs only, and is the same in every process.

    Args:
        model: left unchanged.
        inputs: (N, …) any inputs.
    """
    shape = tuple(inputs.shape[1:])
    known = _KNOWN.setdefault(model, {})
    if shape not in known:
        known[shape] = _runs(model, inputs.new_zeros((2, *shape)))
    return known[shape]


def same_layout(copied: nn.Module, model: nn.Module) -> None:
    """Note that a copy of a model bears what the model bears."""
    if model in _KNOWN:
        _KNOWN[copied] = _KNOWN[model]


@torch.no_grad()
def _runs(model: nn.Module, inputs: Tensor) -> bool:
    """Whether a forward pass in training and evaluation mode works; left alone are model and randomness."""
    if inputs.ndim != 4 and not any(type(module) is nn.Conv2d for module in model.modules()):
        return True
    with torch.random.fork_rng(devices=[]):
        try:
            probe = copy.deepcopy(model)
            store_channels_last(probe)
            for training in (False, True):
                probe.train(training)
                probe(channels_last(inputs) if inputs.ndim == 4 else inputs)
        except Exception:  # a stranger's module may raise anything
            return False
    return True
