"""Models by name, initialized from a given generator."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...core.errors import ParameterError
from ...core.params import check_params
from ...training.parameters import learned
from ..parts import Maker, Parts, asked, called
from .alexnet import AlexNet
from .base import Shape
from .bilstm import BiLstm
from .check import check_made, materialize
from .cnn import FangCnn, FedredefenseCifarCnn, FedredefenseFmnistCnn, LeNet
from .fedavg_cnn import FedAvgCnn
from .gan import Gan
from .language import language_model
from .libraries import timm_model, torchvision_model
from .linear import LogisticRegression, Mlp
from .lstm import Lstm
from .resnet18 import ResNet18
from .resnet20 import ResNet20
from .resnet56 import ResNet56
from .vgg11 import Vgg11

__all__ = [
    "CATALOGUE",
    "MAX_PARAMETERS",
    "AlexNet",
    "BiLstm",
    "FangCnn",
    "FedAvgCnn",
    "FedredefenseCifarCnn",
    "FedredefenseFmnistCnn",
    "Gan",
    "LeNet",
    "LogisticRegression",
    "Lstm",
    "Mlp",
    "ResNet18",
    "ResNet20",
    "ResNet56",
    "Vgg11",
    "build_from",
    "build_model",
    "models",
]

#: The most parameters of a model: 1 GiB of them.
MAX_PARAMETERS = 2**28
#: The most parameters together with frozen ones, as the base of a language model with adapters has them.
MAX_WEIGHTS = 2**32

#: The models that come with FedGuard; the entry point ``fedguard.models`` offers them.
CATALOGUE = {
    "logistic_regression": "fedguard.simulation.models.linear:LogisticRegression",
    "mlp": "fedguard.simulation.models.linear:Mlp",
    "fedredefense_fmnist_cnn": "fedguard.simulation.models.cnn:FedredefenseFmnistCnn",
    "fedredefense_cifar_cnn": "fedguard.simulation.models.cnn:FedredefenseCifarCnn",
    "fang_cnn": "fedguard.simulation.models.cnn:FangCnn",
    "lenet": "fedguard.simulation.models.cnn:LeNet",
    "fedavg_cnn": "fedguard.simulation.models.fedavg_cnn:FedAvgCnn",
    "alexnet": "fedguard.simulation.models.alexnet:AlexNet",
    "vgg11": "fedguard.simulation.models.vgg11:Vgg11",
    "resnet18": "fedguard.simulation.models.resnet18:ResNet18",
    "resnet20": "fedguard.simulation.models.resnet20:ResNet20",
    "resnet56": "fedguard.simulation.models.resnet56:ResNet56",
    "lstm": "fedguard.simulation.models.lstm:Lstm",
    "bilstm": "fedguard.simulation.models.bilstm:BiLstm",
    "gan": "fedguard.simulation.models.gan:Gan",
}

models = Parts(
    "model",
    "fedguard.models",
    ("input_shape", "num_classes"),
    {"torchvision": torchvision_model, "timm": timm_model, "hf": language_model},
)


def build_model(
    name: str, input_shape: Shape, num_classes: int, generator: torch.Generator, **params: Any
) -> nn.Module:
    """A model by name, initialized by its own constructor but only from ``generator``.

    Args:
        name: a name in :data:`models`, ``module:Class`` or ``module:function`` (any that makes an
            ``nn.Module``; it gets ``input_shape`` and ``num_classes`` if it asks for them),
            ``torchvision:NAME``, ``timm:NAME``, ``hf:NAME`` (language models), or
            ``given:NAME`` for a class, a function or a module.
        input_shape: the shape of one input.
        num_classes: the number of labels.
        generator: the only source of randomness; torch's global generator does not change.
        params: the model's own parameters, for example ``hidden``.

    Raises:
        ParameterError: a name or parameter is unknown, or the model does not accept such inputs.
    """
    return build_from(models.get(name), name, input_shape, num_classes, generator, params)


def build_from(
    maker: Any,
    name: str,
    input_shape: Shape,
    num_classes: int,
    generator: torch.Generator,
    params: Mapping[str, Any],
) -> nn.Module:
    """:func:`build_model` for a class, a function or a module that is called ``name`` in messages."""
    if isinstance(maker, nn.Module):  # an object with weights of its own
        if params:
            raise ParameterError(f"model {name} is built already: it takes no parameters")
        return check_made(name, copy.deepcopy(maker))
    if not callable(maker):
        raise ParameterError(
            f"model {name} is neither a class nor a function, but of type {type(maker).__name__}"
        )
    offers = {"input_shape": tuple(input_shape), "num_classes": num_classes}
    checked = check_params(maker, params, f"model {name}", models.offers)
    _check_size(name, maker, offers, checked)
    with torch.random.fork_rng(devices=[]):  # constructors draw from the global generator
        torch.random.set_rng_state(generator.get_state())
        model = check_made(name, called(maker, {**asked(maker, offers), **checked}, f"model {name}"))
        materialize(model, tuple(input_shape))
    return model


def _check_size(name: str, maker: Maker, offers: Mapping[str, Any], params: Mapping[str, Any]) -> None:
    """Refuse a model that would not fit into memory, before any of it is allocated."""
    ours = name in CATALOGUE
    if not ours and name.partition(":")[0] not in models.libraries:
        return
    # A library's model is built without its weights, and its own errors are raised when it is built.
    given = params if ours else {key: value for key, value in params.items() if key != "weights"}
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            model = maker(**asked(maker, offers), **given)
        size = sum(parameter.numel() for parameter in learned(model).values())
        whole = sum(parameter.numel() for parameter in model.parameters())
    except (RuntimeError, OverflowError, TypeError):  # sizes that overflow
        size = whole = MAX_PARAMETERS + 1
    except ParameterError:
        if ours:
            raise
        return
    if size > MAX_PARAMETERS:
        raise ParameterError(f"model {name}: more than {MAX_PARAMETERS:,} parameters; make it smaller")
    if whole > MAX_WEIGHTS:
        raise ParameterError(f"model {name}: more than {MAX_WEIGHTS:,} parameters, most of them frozen")
