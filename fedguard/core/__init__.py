"""What every other part stands on: errors, ids, seeds, states, parameters, threads.

Modules load on first use: ``fedguard.core.state.save(path, state)`` works after ``import fedguard``.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
