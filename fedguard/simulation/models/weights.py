"""Weights from a file: loaded without code, and compared with the model key by key."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from zipfile import ZipFile, is_zipfile

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ...core.errors import ParameterError
from ...core.files import is_file
from ...evaluation.terminal import plain

_log = logging.getLogger(__name__)
#: The most bytes of a file, and of what it unpacks to.
MAX_BYTES = 2**33
#: Keys under which training scripts store the weights.
WRAPPERS = ("state_dict", "model", "model_state_dict")


def load_weights(name: str, model: nn.Module, weights: str | None) -> None:
    """Load a model's parameters and buffers from a file; nothing for ``None`` and "none".

    A last layer of another size (a head for other classes) keeps its initialization, and a warning is
    logged.

    Args:
        name: the model's name, for messages.
        model: gets the weights, in place.
        weights: a .safetensors file, or a .pt or .pth file of tensors, which is read without running code.

    Raises:
        ParameterError: the file cannot be read, or its keys or shapes are not the model's.
    """
    if weights is None or weights == "none":
        return
    found, own = _read(name, Path(weights)), model.state_dict()
    missing = [key for key in own if key not in found and not key.endswith("num_batches_tracked")]
    unknown = [key for key in found if key not in own]
    if missing or unknown:
        problems = [f"{len(missing)} are missing ({_some(missing)})"] if missing else []
        problems += [f"{len(unknown)} are not the model's ({_some(unknown)})"] if unknown else []
        raise ParameterError(
            f"model {name}: the keys of {weights} are not those of the model: {', '.join(problems)}"
        )
    other = [key for key, value in found.items() if value.shape != own[key].shape]
    if other:
        same = all(found[key].ndim == own[key].ndim for key in other)
        if not same or len({key.rpartition(".")[0] for key in other}) > 1 or not _is_last(other[0], own):
            raise ParameterError(
                f"model {name}: {weights} has other shapes: "
                + ", ".join(f"{k} {tuple(found[k].shape)}, not {tuple(own[k].shape)}" for k in other[:3])
            )
        _log.warning(
            "model %s: the last layer of %s is for %d classes and this model has %d: it starts anew",
            name, weights, len(found[other[0]]), len(own[other[0]]),
        )  # fmt: skip
    model.load_state_dict({key: value for key, value in found.items() if key not in other}, strict=False)


def _read(name: str, path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ParameterError(
            f"model {name}: weights is {str(path)!r}; use none, or the path of a .safetensors, .pt or .pth "
            "file (FedGuard downloads nothing)"
        )
    if not is_file(path):  # opening a pipe would wait for ever
        raise ParameterError(f"model {name}: there is no file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ParameterError(f"model {name}: {path} has more than {MAX_BYTES >> 30} GiB")
    try:
        if path.suffix != ".safetensors" and is_zipfile(path):
            _check_unpacked(path)
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a stranger's file may raise anything
        if type(error).__name__ == "UnpicklingError":
            raise ParameterError(
                f"model {name}: {path} holds more than tensors, which would run code; store "
                f"model.state_dict() ({str(error).splitlines()[0]})"
            ) from None
        raise ParameterError(f"model {name}: {path} cannot be read: {error}") from None
    if isinstance(content, Mapping):
        wrapped = next((content[key] for key in WRAPPERS if isinstance(content.get(key), Mapping)), content)
        if wrapped and all(isinstance(value, Tensor) for value in wrapped.values()):
            odd = next((key for key, value in wrapped.items() if not _is_plain(value)), None)
            if odd is not None:
                raise ParameterError(
                    f"model {name}: {plain(odd, 100)} of {path} is not a dense tensor of finite numbers"
                )
            return {str(key).removeprefix("module."): value for key, value in wrapped.items()}
    raise ParameterError(f"model {name}: {path} holds no tensors by name; store model.state_dict() in it")


def _is_plain(value: Tensor) -> bool:
    """Whether it is dense, real and finite: a file may also hold sparse, quantized or empty shells."""
    if value.layout is not torch.strided or value.is_quantized or value.is_nested or value.is_meta:
        return False
    # An expanded tensor announces any size; its numbers are not in the file.
    whole = value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    return whole and not value.is_complex() and bool(value.isfinite().all())


def _check_unpacked(path: Path) -> None:
    """Refuse a file whose tensors do not fit: they may be compressed."""
    with ZipFile(path) as packed:
        if sum(entry.file_size for entry in packed.infolist()) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES >> 30} GiB unpacked")


def _is_last(key: str, own: Mapping[str, Tensor]) -> bool:
    """Whether a key belongs to the model's last layer."""
    return list(own)[-1].rpartition(".")[0] == key.rpartition(".")[0]


def _some(keys: list[str]) -> str:
    return ", ".join(plain(key, 100) for key in keys[:3]) + (", …" if len(keys) > 3 else "")
