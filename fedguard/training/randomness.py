"""Randomness of modules that draw from torch's global generator, as Dropout does."""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..core.seeds import derive
from .dense import hooked

#: Whose modules do the same in every pass, and keep nothing outside themselves.
_KNOWN_CODE = ("torch.nn.modules.", "torchvision.models.", "torchvision.ops.", "fedguard.")


@contextlib.contextmanager
def drawn_from(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Run the block with torch's global generators seeded from ``generator``, and restore them afterwards.

    So the masks of Dropout depend on the client's own generator only, and not on the process or on what ran
    before. ``generator`` itself does not advance: what else is drawn from it stays the same.

    Args:
        generator: the client's.
        device: where the model is; on CUDA, modules draw from that device's global generator.
    """
    seed = derive(_number(generator), "dropout")
    cuda = device.type == "cuda" and torch.cuda.is_available()
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.random.set_rng_state(torch.Generator().manual_seed(seed).get_state())
        if cuda:
            torch.cuda.set_rng_state(torch.Generator(device).manual_seed(seed).get_state(), device)
        yield


def _number(generator: torch.Generator) -> int:
    """A number that depends on the generator's state, which does not advance."""
    try:
        state = generator.get_state().numpy().tobytes()
    except (AssertionError, RuntimeError):  # fake tensors have no numbers
        return generator.initial_seed()
    return int.from_bytes(hashlib.sha256(state).digest()[:7], "big")


def of_known_code(model: nn.Module) -> bool:
    """Whether all its modules are of PyTorch's, torchvision's or FedGuard's classes, without hooks."""
    parts = list(model.modules())
    return all(type(part).__module__.startswith(_KNOWN_CODE) for part in parts) and not any(
        hooked(part) or "forward" in vars(part) for part in parts
    )


def may_draw(model: nn.Module, inputs: Tensor) -> bool:
    """Whether training may draw from torch's global generator; tried on two samples, if the code is known.

    Args:
        model: left unchanged.
        inputs: (N, …) samples that it takes, at least one.
    """
    if not of_known_code(model):
        return True
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        before = torch.random.get_rng_state()
        try:
            copy.deepcopy(model).train()(inputs[torch.arange(2) % len(inputs)])
        except Exception:  # then nothing is known
            return True
        return not torch.equal(before, torch.random.get_rng_state())
