"""Devices by name: found on the machine that runs, made deterministic, and fed by few large transfers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from .device_names import PATTERN
from .errors import ParameterError

#: What cuBLAS needs to give the same bits again; read when CUDA starts in a process.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def available_devices() -> list[str]:
    """The devices of this machine by name; "cpu" first."""
    gpus = (
        [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    )
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def resolve_device(name: str) -> torch.device:
    """The device of a name on this machine.

    "auto" is the first GPU, else Apple's "mps", else the CPU. "cuda" is cuda:0.

    Raises:
        ParameterError: the name is unknown, or this machine does not have the device; names those it has.
    """
    if not re.match(PATTERN, name):
        raise _wrong(f"unknown device {name!r}; use cpu, cuda, cuda:1 (or another number), mps or auto")
    have = available_devices()
    if name == "auto":
        name = have[1] if len(have) > 1 else "cpu"
    full = "cuda:0" if name == "cuda" else name
    if full not in have:
        raise _wrong(f"device {name!r} is not there: this machine has {', '.join(have)}; use one of them")
    return torch.device(full)


def _wrong(message: str) -> ParameterError:
    error = ParameterError(message)
    error.key = "device"
    return error


@contextmanager
def deterministic_on(device: torch.device) -> Iterator[None]:
    """Run the block with deterministic kernels where the device has them; restores the settings afterwards.

    On CUDA: ``use_deterministic_algorithms`` (an operation without a deterministic kernel warns), no cuDNN
    autotuning, no TF32, and cuBLAS with a fixed workspace. Nothing changes for other devices.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(*WORKSPACE)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    saved = matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark
    try:
        torch.use_deterministic_algorithms(True, warn_only=True)
        matmul.allow_tf32 = cudnn.allow_tf32 = cudnn.benchmark = False
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        matmul.allow_tf32, cudnn.allow_tf32, cudnn.benchmark = saved


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """The tensor on a device: itself if it is there, else a copy, sent to a GPU from pinned memory."""
    if tensor.device == device:
        return tensor
    if device.type == "cuda" and type(tensor) is Tensor and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def on_cpu(tensor: Tensor) -> Tensor:
    """The tensor in memory: itself if it is there, else a copy, received from a GPU in pinned memory."""
    if not (tensor.device.type == "cuda" and type(tensor) is Tensor):
        return tensor.cpu()
    here = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    here.copy_(tensor, non_blocking=True)
    torch.cuda.synchronize(tensor.device)
    return here
