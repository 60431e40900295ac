"""Losses by name, for local training: (outputs of the model, labels) → one number."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..contracts.card import GENERATIVE
from ..contracts.local_training import named
from ..core.errors import ConfigError, ParameterError
from ..core.named_code import load_code
from ..core.params import check_params, nearest
from .generation import OUTPUTS, gan
from .tokens import next_token

#: (outputs, labels) → the scalar that training minimizes.
Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(outputs: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """−log p_y, mean over the samples; ``label_smoothing`` gives that share to all classes alike."""
    if not 0 <= label_smoothing <= 1:
        raise ParameterError(f"loss cross_entropy: label_smoothing is {label_smoothing}; it lies in [0, 1]")
    return F.cross_entropy(outputs, labels, label_smoothing=label_smoothing)


def nll(outputs: Tensor, labels: Tensor) -> Tensor:
    """−o_y, mean over the samples: for models whose outputs are log-probabilities."""
    return F.nll_loss(outputs, labels)


def bce(outputs: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of every output with its label, mean over both; outputs are logits."""
    return F.binary_cross_entropy_with_logits(outputs, targets(outputs, labels))


def mse(outputs: Tensor, labels: Tensor) -> Tensor:
    """(o − y)², mean over samples and outputs."""
    return F.mse_loss(outputs, targets(outputs, labels))


def l1(outputs: Tensor, labels: Tensor) -> Tensor:
    """|o − y|, mean over samples and outputs."""
    return F.l1_loss(outputs, targets(outputs, labels))


def huber(outputs: Tensor, labels: Tensor, delta: float = 1.0) -> Tensor:
    """(o − y)²/2 where |o − y| ≤ δ, δ (|o − y| − δ/2) elsewhere; mean over samples and outputs."""
    return F.huber_loss(outputs, targets(outputs, labels), delta=delta)


#: Losses by name.
LOSSES: Mapping[str, Callable[..., Tensor]] = {
    "cross_entropy": cross_entropy,
    "nll": nll,
    "bce": bce,
    "mse": mse,
    "l1": l1,
    "huber": huber,
    "next_token": next_token,
    "gan": gan,
}
#: The loss of each task: what is trained by default, and what the test loss always is.
BY_TASK = {
    "classification": "cross_entropy",
    "multilabel": "bce",
    "regression": "mse",
    "causal": "next_token",
    GENERATIVE: "gan",
}
#: Losses that need one class per sample.
OF_CLASSES = frozenset({"cross_entropy", "nll"})


def targets(outputs: Tensor, labels: Tensor) -> Tensor:
    """The labels as numbers of the outputs' shape; classes become one-hot.

    Raises:
        ParameterError: the model has another number of outputs than there are labels.
    """
    if not labels.is_floating_point() and labels.ndim < outputs.ndim:
        return F.one_hot(labels, outputs.shape[1]).to(outputs.dtype)
    if labels.numel() != outputs.numel():
        raise ParameterError(
            f"training: the model's outputs have shape {tuple(outputs.shape)} for labels of shape "
            f"{tuple(labels.shape)}; give the model as many outputs as a sample has labels"
        )
    return labels.reshape(outputs.shape).to(outputs.dtype)


def loss_function(spec: str | Mapping[str, Any]) -> Loss:
    """The loss that a name, or a mapping of a name and parameters, stands for.

    Raises:
        ParameterError: the name or a parameter is unknown.
    """
    name, params = named(spec)
    if name in LOSSES and not params:
        return LOSSES[name]
    if ":" in name:
        try:
            function = load_code(name, "loss")
        except ConfigError as error:
            raise ParameterError(f"training.loss: {error}") from error
    elif name in LOSSES:
        function = LOSSES[name]
    else:
        known = (
            f"{nearest(name, LOSSES)} (known: {', '.join(LOSSES)}; your own is named by 'module:function')"
        )
        raise ParameterError(f"unknown loss {name!r}{known}")
    if not callable(function):
        raise ParameterError(
            f"loss {name} is no function (outputs, labels), but of type {type(function).__name__}"
        )
    two = list(inspect.signature(function).parameters)[:2]  # outputs and labels, whatever they are called
    given = check_params(function, params, f"loss {name}", frozenset(two))
    return functools.partial(function, **given) if given else function


def check_loss(spec: str | Mapping[str, Any], task: str, outputs: int) -> None:
    """Refuse a loss that does not fit a task, before anything trains.

    Args:
        spec: its name, or its name and parameters.
        task: of the data set: "classification", "multilabel", "regression" or "causal"; or "generative".
        outputs: how many outputs the model has.

    Raises:
        ParameterError: it is unknown, needs classes that the data do not have, or gives no scalar.
    """
    name, _ = named(spec)
    loss = loss_function(spec)
    if task != "classification" and name in OF_CLASSES:
        raise ParameterError(
            f"loss {name} needs one class per sample, and the data are a {task}; leave `loss` out for "
            f"{BY_TASK[task]}"
        )
    if (task == GENERATIVE) != (name == "gan") and name in LOSSES:
        raise ParameterError(f"loss {name} is not for the task {task}; leave `loss` out for {BY_TASK[task]}")
    classes = task == "classification"
    labels = torch.zeros(2, dtype=torch.int64) if classes else torch.zeros(2, outputs)
    given = torch.zeros(2, outputs)
    if task == GENERATIVE:
        given = torch.zeros(2, OUTPUTS)
    if task == "causal":  # two texts of three tokens
        given, labels = torch.zeros(2, 3, outputs), torch.zeros(2, 3, dtype=torch.int64)
    try:
        found = loss(given, labels)
    except ParameterError:
        raise
    except Exception as error:  # somebody's function may raise anything
        raise ParameterError(f"loss {name} fails on outputs and labels of zeros: {error}") from error
    if not isinstance(found, Tensor) or found.ndim:
        shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ParameterError(f"loss {name} returns {shape}; it has to return one number, a 0-d tensor")
