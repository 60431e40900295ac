"""Randomness without global state: every consumer derives its own generator from its purpose."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(seed: int, purpose: str, *keys: object) -> int:
    """A 63-bit seed from (seed, purpose, keys…), the same on every machine.

    Args:
        seed: the experiment's seed.
        purpose: the purpose of the numbers, for example ``"batches"``.
        keys: distinguish consumers with the same purpose, for example the round and the client.
    """
    text = json.dumps([seed, purpose, *keys], default=_plain)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def _plain(key: object) -> object:
    return key.item() if isinstance(key, np.generic) else str(key)


def generator(seed: int, purpose: str, *keys: object) -> torch.Generator:
    """A torch generator seeded by :func:`derive`."""
    import torch  # a slow import, which statistics of stored results do without

    return torch.Generator().manual_seed(derive(seed, purpose, *keys))


def numpy_generator(seed: int, purpose: str, *keys: object) -> np.random.Generator:
    """A NumPy generator seeded by :func:`derive`."""
    return np.random.default_rng(derive(seed, purpose, *keys))
