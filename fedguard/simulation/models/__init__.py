"""Models by name, initialized from a given generator."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from ...core.errors import ParameterError
from ...core.params import check_params, nearest
from .base import Shape
from .bilstm import BiLstm
from .cnn import FangCnn, FedredefenseCifarCnn, FedredefenseFmnistCnn, LeNet
from .linear import LogisticRegression, Mlp
from .resnet20 import ResNet20

__all__ = [
    "MAX_PARAMETERS",
    "MODELS",
    "BiLstm",
    "FangCnn",
    "FedredefenseCifarCnn",
    "FedredefenseFmnistCnn",
    "LeNet",
    "LogisticRegression",
    "Mlp",
    "ResNet20",
    "build_model",
]

#: The most parameters of a model: 1 GiB of them.
MAX_PARAMETERS = 2**28

MODELS: dict[str, type[nn.Module]] = {
    "logistic_regression": LogisticRegression,
    "mlp": Mlp,
    "fedredefense_fmnist_cnn": FedredefenseFmnistCnn,
    "fedredefense_cifar_cnn": FedredefenseCifarCnn,
    "fang_cnn": FangCnn,
    "lenet": LeNet,
    "resnet20": ResNet20,
    "bilstm": BiLstm,
}


def build_model(
    name: str, input_shape: Shape, num_classes: int, generator: torch.Generator, **params: Any
) -> nn.Module:
    """A model of :data:`MODELS`, initialized like torch's default but only from ``generator``.

    Args:
        name: its name.
        input_shape: the shape of one input.
        num_classes: the number of labels.
        generator: the only source of randomness; torch's global generator does not change.
        params: the model's own parameters, for example ``hidden``.

    Raises:
        ParameterError: a name or parameter is unknown, or the model does not accept such inputs.
    """
    if name not in MODELS:
        raise ParameterError(f"unknown model {name!r}{nearest(name, MODELS)} (known: {', '.join(MODELS)})")
    checked = check_params(MODELS[name], params, f"model {name}", skip=2)
    _check_size(name, input_shape, num_classes, checked)
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        model = MODELS[name](tuple(input_shape), num_classes, **checked)
    for layer in model.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            _initialize(layer, generator)
        elif isinstance(layer, nn.LSTM):
            for weights in layer.parameters():
                nn.init.uniform_(weights, -(layer.hidden_size**-0.5), layer.hidden_size**-0.5, generator)
        elif isinstance(layer, nn.Embedding):
            nn.init.normal_(layer.weight, generator=generator)
    return model


def _check_size(name: str, input_shape: Shape, num_classes: int, params: dict[str, Any]) -> None:
    """Refuse a model that would not fit into memory, before any of it is allocated."""
    try:
        with torch.device("meta"):
            model = MODELS[name](tuple(input_shape), num_classes, **params)
        size = sum(parameter.numel() for parameter in model.parameters())
    except (RuntimeError, OverflowError, TypeError):  # sizes that overflow
        size = MAX_PARAMETERS + 1
    if size > MAX_PARAMETERS:
        raise ParameterError(f"model {name}: more than {MAX_PARAMETERS:,} parameters; make it smaller")


@torch.no_grad()
def _initialize(layer: nn.Linear | nn.Conv2d, generator: torch.Generator) -> None:
    """Weights and bias ~ U(−1/√fan_in, 1/√fan_in): Kaiming with a = √5, then torch's rule for the bias."""
    nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    if layer.bias is not None:
        bound = 1 / math.sqrt(layer.weight[0].numel())
        nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
