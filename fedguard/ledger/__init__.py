"""The history of clients: strikes, bans and scores, in memory or in a SQLite file."""

from __future__ import annotations

from typing import Any

from ..core.deprecation import moved
from .memory import Ledger, Record
from .rows import Action, Judgement
from .sqlite import SQLiteLedger

__all__ = ["Action", "Judgement", "Ledger", "Record", "SQLiteLedger"]


def __getattr__(name: str) -> Any:
    return moved(__name__, name, "fedguard.ledger.memory")
