"""The version of the code that produced a result."""

from __future__ import annotations

import functools
import hashlib
from importlib.resources import files
from importlib.resources.abc import Traversable

import torch

from ...core.version import __version__


@functools.cache
def code_version() -> str:
    """FedGuard's and torch's versions and a hash of FedGuard's sources; equal strings mean equal results."""
    digest = hashlib.sha256()
    for package in ("fedguard", "fedguard.detectors", "fedguard.attacks"):
        for name, text in sorted(_sources(files(package), "")):
            digest.update(f"{package}/{name}\n".encode() + text)
    return f"{__version__}+{digest.hexdigest()[:12]} torch {torch.__version__}"


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".py"):
            found.append((prefix + entry.name, entry.read_bytes()))
    return found
