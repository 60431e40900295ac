"""LoRA adapters in peft's folders: ``adapter_config.json`` and ``adapter_model.safetensors``, in and out."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ..core.errors import DataError, ParameterError
from ..core.files import save_tensors, write_atomically, write_file
from .adapters import adapter_names, saved_name

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"


def load_adapters(folder: str | Path, into: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Read a peft folder as the first parameters of a federation.

    bfloat16, which NumPy lacks, becomes float32.

    Args:
        folder: with ``adapter_config.json`` and ``adapter_model.safetensors``, as peft saves it.
        into: the arrays that the federation exchanges, such as the ``state_dict()`` of a ``PeftModel`` or
            of one of FedGuard's models. The result then has its names, and the folder's adapters and head.
            By default the names are those in the file, as ``peft.get_peft_model_state_dict`` gives them.

    Returns:
        Name → tensor, for ``ArrayRecord(…)``.

    Raises:
        DataError: a file is missing or cannot be read.
        ParameterError: they are no LoRA adapters, or not those of ``into``: another base model, other target
            layers, another rank.

    Example:
        >>> import tempfile, torch
        >>> from safetensors.torch import save_file
        >>> folder = tempfile.TemporaryDirectory()
        >>> _ = (Path(folder.name) / CONFIG_FILE).write_text('{"peft_type": "LORA", "r": 1}')
        >>> name = "base_model.model.q.lora_A.weight"
        >>> save_file({name: torch.ones(1, 2)}, Path(folder.name) / WEIGHTS_FILE)
        >>> load_adapters(folder.name, {"base.q.lora_A.default.weight": torch.zeros(1, 2)})
        {'base.q.lora_A.default.weight': tensor([[1., 1.]])}
        >>> folder.cleanup()
    """
    where = Path(folder)
    _config(where)
    found = _tensors(where / WEIGHTS_FILE)
    found = {name: t.float() if t.dtype == torch.bfloat16 else t for name, t in found.items()}
    if into is None:
        return found
    own = {name: saved_name(name) for name in adapter_names(into)}
    _same(set(own.values()), set(found), f"{where / WEIGHTS_FILE}", "the federation's model")
    result: dict[str, Tensor] = dict(into)
    for name, saved in own.items():
        _same_shape(saved, found[saved], into[name], f"{where / WEIGHTS_FILE}", "the federation's model")
        own_dtype = into[name].dtype if isinstance(into[name], Tensor) else None
        result[name] = found[saved] if own_dtype is None else found[saved].to(own_dtype)
    return result


def save_adapters(folder: str | Path, arrays: Mapping[str, Any], like: str | Path) -> None:
    """Write the adapters and the new head of a global model as a folder for ``PeftModel.from_pretrained``.

    Args:
        folder: the folder to write; created if absent.
        arrays: the global model: tensors, NumPy arrays, or Flower's ``result.arrays``; everything but the
            adapters and the head is left out.
        like: a peft folder. Its ``adapter_config.json`` is copied; if it has adapters, the new ones must have
            the same names and shapes, and get their dtypes.

    Raises:
        DataError: a file is missing or cannot be read.
        ParameterError: there are no adapters, or not those of ``like``.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as home:
        ...     _ = (Path(home) / CONFIG_FILE).write_text('{"peft_type": "LORA", "r": 1}')
        ...     save_adapters(f"{home}/out", {"base.q.lora_A.default.weight": np.ones((1, 2))}, like=home)
        ...     sorted(path.name for path in Path(home, "out").iterdir())
        ['adapter_config.json', 'adapter_model.safetensors']
    """
    config, pattern = _config(Path(like)), Path(like) / WEIGHTS_FILE
    chosen = {saved_name(name): _tensor(arrays[name]) for name in adapter_names(arrays)}
    if not chosen:
        raise ParameterError(
            f"arrays: none of {len(arrays)} is named like a LoRA adapter (lora_A, lora_B, …)"
        )
    if pattern.exists():
        before = _tensors(pattern)
        _same(set(before), set(chosen), "the global model", str(pattern))
        for name, tensor in chosen.items():
            _same_shape(name, tensor, before[name], "the global model", str(pattern))
            chosen[name] = tensor.to(before[name].dtype)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_atomically(Path(folder) / WEIGHTS_FILE, lambda fresh: save_tensors(chosen, fresh, {"format": "pt"}))
    write_file(Path(folder) / CONFIG_FILE, config)


def _config(folder: Path) -> bytes:
    """The bytes of a folder's configuration, if it is one of LoRA."""
    path = folder / CONFIG_FILE
    try:
        text = path.read_bytes()
        kind = json.loads(text).get("peft_type")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; give a folder that peft saved") from None
    except (ValueError, AttributeError):
        raise DataError(f"{path} is not a configuration of peft") from None
    if kind != "LORA":
        raise ParameterError(f"{path}: peft_type is {kind!r}; FedGuard reads 'LORA'")
    return text


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.with_suffix(".bin").exists() and not path.exists():
        raise DataError(
            f"{path.with_suffix('.bin')} is a pickle, which can run code; save it with peft as {path.name}"
        )
    try:
        return load_file(path)
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; give a folder that peft saved") from None
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _tensor(value: Any) -> Tensor:
    plain = value if isinstance(value, Tensor | np.ndarray) else value.numpy()  # Flower's arrays
    return torch.as_tensor(plain).detach().cpu().clone().contiguous()


def _same(expected: set[str], found: set[str], what: str, other: str) -> None:
    missing, extra = sorted(expected - found), sorted(found - expected)
    if missing or extra:
        verb, name = ("lacks", missing[0]) if missing else ("has", extra[0])
        raise ParameterError(
            f"{what} {verb} {name}, contrary to {other} ({len(missing)} missing, {len(extra)} more); both "
            "need the same base model and target layers"
        )


def _same_shape(name: str, found: Any, own: Any, what: str, other: str) -> None:
    if tuple(found.shape) != tuple(own.shape):
        raise ParameterError(
            f"{what}: {name} has shape {tuple(found.shape)}, {other} has {tuple(own.shape)}; both need the "
            "same base model and rank"
        )
