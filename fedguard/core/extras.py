"""Optional dependencies: imported on use, with a clear error if they are missing."""

from __future__ import annotations

import importlib
from typing import Any

from .errors import ParameterError


def extra_module(module: str, extra: str, purpose: str) -> Any:
    """Import a module that an extra of FedGuard installs.

    Raises:
        ParameterError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ParameterError(f'{purpose} needs an extra: pip install "fedguard[{extra}]"') from None
