"""What must hold of every data set before anything trains."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ...contracts.card import TASKS
from ...contracts.data import Samples
from ...core.errors import DataError, ParameterError
from ...training.tokens import IGNORED
from .base import Dataset


def checked(data: Dataset, name: str) -> Dataset:
    """The data set, if models and attacks can use it.

    Raises:
        DataError: shapes, types, labels or constants are not as :class:`Dataset` says; says which.
        ParameterError: a part of it is something else.
    """
    for part in ("train", "test"):
        samples = getattr(data, part)
        if not isinstance(samples, Samples) or not all(isinstance(item, Tensor) for item in samples):
            raise ParameterError(f"data {name}: {part} is a {type(samples).__name__}, not Samples of tensors")
        _check_inputs(samples.pixels, f"{name}: {part}")
        _check_labels(data, samples, f"{name}: {part}")
    if data.train.pixels.shape[1:] != data.test.pixels.shape[1:]:
        raise DataError(
            f"{name}: training samples have shape {data.input_shape}, test samples "
            f"{tuple(data.test.pixels.shape[1:])}; make them alike"
        )
    _check_constants(data, name)
    _check_clients(data, name)
    return data


def _check_inputs(inputs: Tensor, where: str) -> None:
    if inputs.ndim < 2 or len(inputs) == 0:
        raise DataError(f"{where}: inputs have shape {tuple(inputs.shape)}; (N, …) with N > 0 is expected")
    if inputs.dtype != torch.float32:
        raise DataError(f"{where}: inputs are {inputs.dtype}; give torch.float32")
    if inputs.device.type != "cpu" or inputs.requires_grad:
        raise DataError(
            f"{where}: inputs are on {inputs.device} or have a gradient; give inputs.detach().cpu()"
        )
    if not math.isfinite(float(inputs.sum(dtype=torch.float64))):
        rows = ~inputs.reshape(len(inputs), -1).isfinite().all(1)
        if rows.any():
            first = int(rows.int().argmax())
            raise DataError(f"{where}: sample {first} holds NaN or an infinite number; correct or remove it")


def _check_labels(data: Dataset, samples: Samples, where: str) -> None:
    labels, outputs = samples.labels, data.num_classes
    if data.task not in TASKS:
        raise DataError(f"{where}: task is {data.task!r}; use {', '.join(TASKS[:-1])} or {TASKS[-1]}")
    plain = data.task == "classification"
    if plain and outputs < 2:
        raise DataError(f"{where}: num_classes is {outputs}; a classifier needs two classes")
    shape: tuple[int, ...] = (len(samples.pixels),) if plain else (len(samples.pixels), outputs)
    if data.task == "causal":
        shape = tuple(samples.pixels.shape)
    dtype = torch.int64 if data.task in ("classification", "causal") else torch.float32
    if tuple(labels.shape) != shape or labels.dtype != dtype:
        raise DataError(
            f"{where}: labels are {labels.dtype} of shape {tuple(labels.shape)}; {data.task} takes {dtype} "
            f"of shape {shape}"
        )
    wrong = (labels < 0) | (labels >= outputs) if plain else ~labels.isfinite()
    if data.task == "multilabel":
        wrong = (labels != 0) & (labels != 1)
    if data.task == "causal":
        wrong = (labels < IGNORED) | (labels >= outputs) | (labels == IGNORED).all(1, keepdim=True)
    if wrong.any():
        first = int(wrong.reshape(len(labels), -1).any(1).int().argmax())
        takes = {"classification": f"0 to {outputs - 1}", "multilabel": "0 and 1", "regression": "numbers"}
        takes["causal"] = f"-1 to {outputs - 1}, and one of them not -1,"
        raise DataError(
            f"{where}: sample {first} has the label {labels[first].tolist()}; {takes[data.task]} fit"
        )


def _check_constants(data: Dataset, name: str) -> None:
    axis = data.train.pixels.shape[1]
    for key in ("mean", "std"):
        values = getattr(data, key)
        if len(values) not in (1, axis) or not all(math.isfinite(value) for value in values):
            raise DataError(f"{name}: {key} has {len(values)} values; give 1 or {axis} finite ones")
    if min(data.std) <= 0:
        raise DataError(f"{name}: std is {min(data.std):g} somewhere; put 1 where the inputs are constant")


def _check_clients(data: Dataset, name: str) -> None:
    if data.clients is None:
        return
    count = len(data.train.labels)
    if data.clients.shape != (count,) or data.clients.dtype != np.int64:
        raise DataError(
            f"{name}: clients are {data.clients.dtype} of shape {data.clients.shape}; int64 "
            f"of shape ({count},) is expected"
        )
    if data.clients.min() < 0 or (data.client_names and data.clients.max() >= len(data.client_names)):
        raise DataError(
            f"{name}: clients are numbered {data.clients.min()} to {data.clients.max()}, but there are "
            f"{len(data.client_names)} names"
        )
