"""Files that complete a live recording: a model, validation data, root data."""

from __future__ import annotations

import dataclasses
import inspect
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ...contracts.data import LabeledData
from ...contracts.server import Server
from ...core.errors import ConfigError, DataError, ParameterError
from ...core.seeds import generator
from ...recording import Recording
from ...simulation.datasets.files import own_file
from ...simulation.datasets.npz import MAX_BYTES, read_npz
from ...simulation.models import build_from, models
from ...simulation.recorded import server_of


def given_server(
    recording: Recording, model: str | None, validation: Path | None, root: Path | None
) -> Server | None:
    """The server for a replay; None if nothing is given.

    Args:
        recording: of a simulation or live; a simulation's server is rebuilt, and the other arguments replace
            its parts.
        model: the name of a model as suites have it, ``module:Class`` and ``module:function`` among them.
        validation: a .npz or .safetensors file with ``inputs`` (as the model takes them) and ``labels``.
        root: likewise.

    Raises:
        ConfigError: something cannot be read or built.
    """
    if model is None and validation is None and root is None:
        return None
    data = {name: labeled_from(path) for name, path in (("validation", validation), ("root", root)) if path}
    base = server_of(recording) or Server()
    parts: dict[str, Any] = dict(data)
    if model is not None:
        own = recording.read(0).round.server or Server()
        some = next(iter(data.values()), None)
        shape = own.input_shape or (None if some is None else tuple(some.inputs.shape[1:]))
        classes = own.num_classes or (None if some is None else int(some.labels.max()) + 1)
        parts["model"] = _model(model, shape, classes)
        parts["input_shape"], parts["num_classes"] = shape, classes
    return dataclasses.replace(base, **parts)


def labeled_from(path: Path) -> LabeledData:
    """Inputs and labels from a file.

    Raises:
        ConfigError: it cannot be read, or holds something else.
    """
    try:
        own_file(str(path), MAX_BYTES)
        if path.suffix == ".npz":
            arrays = read_npz(path)
            inputs, labels = torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["labels"])
        elif path.suffix == ".safetensors":
            tensors = load_file(path)
            inputs, labels = tensors["inputs"], tensors["labels"]
        else:
            raise ConfigError(f"{path}: use a .npz or .safetensors file with `inputs` and `labels`")
    except KeyError as error:
        raise ConfigError(f"{path} has no {error.args[0]}; store `inputs` and `labels` in it") from None
    except DataError as error:
        raise ConfigError(str(error)) from None
    except (OSError, ValueError, TypeError, SafetensorError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    if labels.shape != (len(inputs),) or len(labels) == 0:
        raise ConfigError(f"{path}: {len(inputs)} inputs, but labels of shape {tuple(labels.shape)}")
    return LabeledData(inputs.float(), labels.long())


def _model(name: str, shape: tuple[int, ...] | None, classes: int | None) -> nn.Module:
    """A model by any name that a suite may use; its own parameters are not used."""
    try:
        maker = models.get(name)
        offers: dict[str, Any] = {"input_shape": shape, "num_classes": classes}
        known = {} if isinstance(maker, nn.Module) else inspect.signature(maker).parameters
        for key in (key for key, value in offers.items() if value is None and key in known):
            offers[key] = known[key].default
            if offers[key] is inspect.Parameter.empty:
                raise ConfigError(f"--model {name}: the input size is unknown; give --validation too")
        sizes = offers["input_shape"] or (), offers["num_classes"] or 0
        return build_from(maker, name, *sizes, generator(0, "replay"), {})
    except ParameterError as error:
        raise ConfigError(f"--model {name}: {error}") from None
