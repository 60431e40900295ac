"""Local training of clients: any model one client at a time, dense networks many at a time."""

from __future__ import annotations

from typing import Any

from ..contracts.local_training import LocalTraining
from ..core.deprecation import moved
from .local import train_client, train_clients

__all__ = ["LocalTraining", "train_client", "train_clients"]


def __getattr__(name: str) -> Any:
    return moved(__name__, name, "fedguard.training.local")
