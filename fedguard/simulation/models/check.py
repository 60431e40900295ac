"""Whether a model fits the data, tried on two samples before anything trains."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from ...core.errors import ParameterError
from ...training.parameters import learned


def check_made(name: str, model: object) -> nn.Module:
    """What a maker made, if it is a module of float32 parameters.

    Raises:
        ParameterError: it is not.
    """
    if not isinstance(model, nn.Module):
        raise ParameterError(f"model {name} made a {type(model).__name__}, not a torch.nn.Module")
    for parameter, value in model.named_parameters():
        if value.dtype != torch.float32:
            raise ParameterError(
                f"model {name}: its parameter {parameter!r} is of {value.dtype}; updates are of "
                "torch.float32, so return model.float()"
            )
    return model


def materialize(model: nn.Module, input_shape: tuple[int, ...]) -> None:
    """Give lazy layers their size, which they take from the first input."""
    if any(isinstance(parameter, UninitializedParameter) for parameter in model.parameters()):
        with torch.no_grad():
            model(torch.zeros(2, *input_shape))


def check_fit(
    name: str,
    model: nn.Module,
    inputs: Tensor,
    outputs: int,
    alone: str | None = None,
    task: str = "classification",
) -> None:
    """Run the model on two samples, in evaluation and in training mode, and back.

    The model and torch's global generator stay as they are.

    Args:
        name: the model's name, for messages.
        model: the model.
        inputs: (2, *input_shape) two samples of the data, normalized.
        outputs: how many numbers the model gives for each sample: the number of classes; for each token of a
            causal text, the size of the vocabulary or more.
        alone: which client trains on a batch of one sample, for messages; None if none does.
        task: of the data set.

    Raises:
        ParameterError: says what the model did, what was expected and what to do.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ParameterError(
            f"model {name}: no parameter requires gradients, so nothing can be trained; set "
            "requires_grad of those that clients train"
        )
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.random.set_rng_state(torch.Generator().manual_seed(0).get_state())
        own = _copied(name, model)
        with torch.no_grad():
            logits = _logits(name, own.eval(), inputs, outputs, task)
            again = _logits(name, own, inputs, outputs, task)
        if not torch.equal(logits.nan_to_num(), again.nan_to_num()):
            raise ParameterError(
                f"model {name}: two passes over the same samples in evaluation mode give different logits; "
                "draw random numbers in training mode only (`if self.training`)"
            )
        _check_gradients(name, own, _logits(name, own.train(), inputs, outputs, task))
        if alone is not None:
            _check_alone(name, own, inputs[:1], alone)


def _copied(name: str, model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:  # a stranger's module may raise anything
        raise ParameterError(
            f"model {name} cannot be copied by copy.deepcopy ({type(error).__name__}: {error}); keep what "
            "cannot be copied out of the module"
        ) from error


def _logits(name: str, model: nn.Module, inputs: Tensor, outputs: int, task: str) -> Tensor:
    """The logits of one pass, of the right shape and finite."""
    mode = "training" if model.training else "evaluation"
    shape = "×".join(map(str, inputs.shape[1:]))
    given = inputs.clone()
    try:
        logits = model(given)
    except ParameterError:
        raise
    except Exception as error:  # a stranger's module may raise anything
        raise ParameterError(
            f"model {name} does not take the data: a pass in {mode} mode over {len(inputs)} samples of shape "
            f"{shape} raised {type(error).__name__}: {error}. It gets a tensor of shape "
            f"{tuple(inputs.shape)}; a model that asks for `input_shape` is told {tuple(inputs.shape[1:])}"
        ) from error
    if not torch.equal(given.nan_to_num(), inputs.nan_to_num()):
        raise ParameterError(
            f"model {name} changes its inputs in {mode} mode, and with them the samples of all who come "
            "after; compute on a copy (x = x.clone(), or no inplace=True before the first layer)"
        )
    if not isinstance(logits, Tensor):
        raise ParameterError(
            f"model {name} returned a {type(logits).__name__} in {mode} mode; return one tensor of logits, "
            f"of shape {(len(inputs), outputs)} for {len(inputs)} samples"
        )
    if task == "causal":
        _check_tokens(name, logits, inputs, outputs)
    elif logits.shape != (len(inputs), outputs):
        raise ParameterError(
            f"model {name} gave logits of shape {tuple(logits.shape)} in {mode} mode, expected "
            f"{(len(inputs), outputs)}: {len(inputs)} samples, {outputs} classes; a model that asks for "
            "`num_classes` is told the number of classes"
        )
    if not logits.isfinite().all() and inputs.isfinite().all():
        raise ParameterError(
            f"model {name} gave NaN or Inf for a sample in {mode} mode, before any training; check its "
            "initialization"
        )
    return logits


def _check_tokens(name: str, logits: Tensor, inputs: Tensor, outputs: int) -> None:
    """Refuse logits other than (N, L, V), V at least the data's vocabulary."""
    if logits.shape[:-1] != inputs.shape or logits.shape[-1] < outputs:
        raise ParameterError(
            f"model {name} gave logits of shape {tuple(logits.shape)} for texts of shape "
            f"{tuple(inputs.shape)}, expected {(*inputs.shape, outputs)}: one number for each of {outputs} "
            "tokens; use a language model with `task: causal`"
        )


def _check_gradients(name: str, model: nn.Module, logits: Tensor) -> None:
    """Refuse a model whose logits do not depend on its learned parameters by way of autograd."""
    parameters = list(learned(model).values())
    problem = "they do not depend on its parameters (detached, or computed under no_grad)"
    if logits.requires_grad:
        try:
            found = torch.autograd.grad(logits.square().sum(), parameters, allow_unused=True)
        except RuntimeError as error:
            problem = f"the backward pass raised: {error}"
        else:
            if any(gradient is not None for gradient in found):
                return
    raise ParameterError(f"model {name}: its logits have no gradients: {problem}")


def _check_alone(name: str, model: nn.Module, sample: Tensor, who: str) -> None:
    """Refuse a model that cannot train on a batch of one sample, if there will be one."""
    try:
        model(sample.clone())
    except Exception as error:  # a stranger's module may raise anything
        raise ParameterError(
            f"model {name} cannot train on a batch of one sample ({type(error).__name__}: {error}), and "
            f"{who} has one; choose another training.batch_size, or normalize otherwise (norm: group)"
        ) from error
