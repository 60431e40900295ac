"""Models as flat parameter vectors, the form that updates and detectors use.

Only learned parameters are scored (see :func:`learned`). Statistics (floating-point buffers, as BatchNorm has
them) travel beside them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the usual name

from ..contracts.card import GENERATIVE
from ..contracts.data import LabeledData
from ..core.errors import RoundError
from .generation import gan
from .layout import bears_channels_last, channels_last, same_layout
from .tokens import TEXTS, token_sums


def learned(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that clients train, by name, in the order of ``model.parameters()``.

    These are the ones that require gradients. The others are frozen: they belong to no update, and stay as
    they are. If no parameter requires gradients, as in a model frozen for evaluation, all are learned. Tied
    weights count once.
    """
    return _learned_of(dict(model.named_parameters()))


def _learned_of(named: dict[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {name: p for name, p in named.items() if p.requires_grad} or named


def fitting(model: nn.Module, size: int) -> dict[str, nn.Parameter]:
    """The parameters that a vector of this size holds, by name: the learned ones, or all with the frozen.

    Raises:
        RoundError: the model has another number of parameters.
    """
    whole = dict(model.named_parameters())
    own = _learned_of(whole)
    for named in (own, whole):
        if sum(p.numel() for p in named.values()) == size:
            return named
    count = sum(p.numel() for p in own.values())
    raise RoundError(f"a vector of shape ({size},) for a model of {count} parameters")


def flat_parameters(model: nn.Module) -> Tensor:
    """(d,) a copy of the learned parameters, without gradient, in the order of ``model.parameters()``."""
    return flat(learned(model).values())


def flat(parameters: Iterable[Tensor]) -> Tensor:
    """(d,) a copy of the tensors, without gradient, flattened and concatenated."""
    return torch.cat([p.detach().flatten() for p in parameters])


def device_of(model: nn.Module, other: Tensor) -> torch.device:
    """The device of a model's first parameter; that of another tensor if it has none."""
    return next((p.device for p in model.parameters()), other.device)


def split_parameters(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """Split a (d,) vector into tensors by parameter name, as views.

    Args:
        model: the architecture.
        vector: its learned parameters, or all of them.

    Raises:
        RoundError: the model does not have d parameters.
    """
    return parts_of(vector, fitting(model, vector.numel()))


def parts_of(vector: Tensor, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split a (d,) vector into views of the shapes of these parameters, which :func:`fitting` found."""
    parts = torch.split(vector, [p.numel() for p in named.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(named.items(), parts, strict=True)}


def load_parameters(model: nn.Module, vector: Tensor) -> None:
    """Copy a (d,) vector into the model's parameters, in place; frozen ones that it lacks stay."""
    named = fitting(model, len(vector))
    with torch.no_grad():
        for name, part in parts_of(vector, named).items():
            named[name].copy_(part)


def statistics_of(model: nn.Module) -> dict[str, Tensor]:
    """The floating-point buffers that a ``state_dict`` holds, by name, in the order of ``model.buffers()``.

    Others, such as a language model's table of rotations, are constants that no client changes.
    """
    floating = {name: b for name, b in model.named_buffers() if b.is_floating_point()}
    stored = model.state_dict().keys() if floating else ()
    return {name: b for name, b in floating.items() if name in stored}


def flat_statistics(model: nn.Module) -> Tensor:
    """(s,) a copy of the model's :func:`statistics_of`, in their order; (0,) without any."""
    parts = [b.detach().flatten().float() for b in statistics_of(model).values()]
    return torch.cat(parts) if parts else torch.zeros(0)


@torch.no_grad()
def load_statistics(model: nn.Module, vector: Tensor) -> None:
    """Copy an (s,) vector into the model's :func:`statistics_of`, in place."""
    buffers = list(statistics_of(model).values())
    for buffer, part in zip(buffers, torch.split(vector, [b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view(buffer.shape))


def with_statistics(model: nn.Module, vector: Tensor) -> nn.Module:
    """Return a copy of the model with these statistics; the model itself if there are none."""
    if not len(vector):
        return model
    own = copy.deepcopy(model)
    same_layout(own, model)
    load_statistics(own, vector)
    return own


#: Samples per forward pass; fixed, so that results do not depend on memory or workers.
BATCH = 2000
#: Images per forward pass of a model, few enough for the layers' outputs to stay in the cache.
IMAGES = 200


def laid_out(
    model: nn.Module, parameters: dict[str, Tensor], inputs: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """The parameters and images in the memory order that is fastest for the model; other inputs as is."""
    if inputs.ndim != 4:
        return parameters, inputs
    if not bears_channels_last(model, inputs):
        return parameters, inputs.contiguous()
    ordered = {name: channels_last(p) if p.ndim == 4 else p for name, p in parameters.items()}
    return ordered, channels_last(inputs)


@torch.no_grad()
def predict(model: nn.Module, vector: Tensor, inputs: Tensor) -> Tensor:
    """(samples, classes) logits with these (d,) parameters in eval mode; leaves the model unchanged.

    Runs on the model's device, wherever the parameters and inputs are.
    """
    training = [part for part in model.modules() if part.training]
    device = device_of(model, vector)
    inputs = inputs.to(device)
    parameters, inputs = laid_out(model, split_parameters(model, vector.to(device)), inputs)
    parts = torch.split(inputs, IMAGES) if inputs.ndim == 4 else (inputs,)
    model.eval()
    try:
        logits = [torch.func.functional_call(model, parameters, (part,)) for part in parts]
    finally:
        for part in training:  # one by one, as some parts may have been in eval mode before
            part.training = True
    return torch.cat(logits)


@torch.no_grad()
def wrong_and_loss(
    model: nn.Module, vector: Tensor, data: LabeledData, task: str = "classification", whole: bool = False
) -> tuple[float, float]:
    """How much of one batch is predicted wrongly, and the sum of its samples' losses.

    - classification: the number of misclassified samples; the cross-entropy;
    - multilabel: per sample the share of wrong labels, a label being predicted where its output is above 0;
      the binary cross-entropy, mean over the labels;
    - regression: NaN, as nothing is right or wrong; the squared error, mean over the outputs;
    - generative: NaN; the loss of both networks;
    - causal: per text the share of answer tokens that are predicted wrongly; their cross-entropy, mean over
      the tokens.

    Args:
        model: the architecture; left unchanged, used in eval mode.
        vector: (d,) its parameters.
        data: the batch.
        task: of the data set.
        whole: a causal text with one wrong token is wrong altogether.
    """
    if task == "causal":
        few = batches(data, TEXTS)
        sums = [token_sums(predict(model, vector, part.inputs), part.labels, whole) for part in few]
        return sum(part.wrong for part in sums), sum(part.loss for part in sums)
    outputs = predict(model, vector, data.inputs)
    if task == GENERATIVE:
        return float("nan"), float(gan(outputs, data.labels)) * len(outputs)
    labels = data.labels.to(outputs.device)
    if task == "classification":
        wrong = int((outputs.argmax(1) != labels).sum())
        return wrong, float(F.cross_entropy(outputs, labels, reduction="sum"))
    values, count = labels.reshape(outputs.shape).to(outputs.dtype), outputs[:1].numel()
    if task == "regression":
        return float("nan"), float(F.mse_loss(outputs, values, reduction="sum")) / count
    missed = int(((outputs > 0) != (values > 0.5)).sum())
    return missed / count, float(F.binary_cross_entropy_with_logits(outputs, values, reduction="sum")) / count


def batches(data: LabeledData, size: int = BATCH) -> list[LabeledData]:
    """Split the samples into batches, in order."""
    parts = zip(torch.split(data.inputs, size), torch.split(data.labels, size), strict=True)
    return [LabeledData(*part) for part in parts]


def mean_of(parts: Iterable[tuple[float, float]], count: int) -> tuple[float, float]:
    """Error rate in [0, 1] and mean loss over the batches of ``count`` samples; NaN without any."""
    if count == 0:
        return float("nan"), float("nan")
    wrong, loss = (sum(column) for column in zip(*parts, strict=True))
    return wrong / count, loss / count


def error_and_loss(
    model: nn.Module,
    vector: Tensor,
    data: LabeledData,
    batch: int = BATCH,
    task: str = "classification",
) -> tuple[float, float]:
    """Error rate in [0, 1] and mean loss of the model with these parameters, in eval mode.

    Args:
        model: the architecture; left unchanged.
        vector: (d,) parameters.
        data: the samples; without any, both numbers are NaN.
        batch: samples per forward pass.
        task: of the data set, see :func:`wrong_and_loss`.
    """
    parts = (wrong_and_loss(model, vector, part, task) for part in batches(data, batch))
    return mean_of(parts, len(data.labels))
