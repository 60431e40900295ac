"""Randomness of modules that draw from torch's global generator, as Dropout does."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

from ..core.seeds import derive


@contextlib.contextmanager
def drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Run the block with torch's global generator seeded from ``generator``, and restore it afterwards.

    So the masks of Dropout depend on the client's own generator only, and not on the process or on what ran
    before. ``generator`` itself does not advance: what else is drawn from it stays the same.
    """
    ahead = torch.Generator(generator.device)
    ahead.set_state(generator.get_state())
    drawn = torch.randint(2**62, (), generator=ahead, device=generator.device)
    with torch.random.fork_rng(devices=[]):
        own = torch.Generator().manual_seed(derive(int(drawn), "dropout"))
        torch.random.set_rng_state(own.get_state())
        yield
